/* The Diameter side of a session management function that is built on freeDiameter, as Open5GS' is: freeDiameter's own
 * peers, routing, dictionaries and rules; what it sends and when is up to whoever writes to its standard input.
 *
 *   cc -o gateway gateway.c -lfdcore -lfdproto
 *   gateway smf.conf
 *
 * Lines of the input:
 *
 *   send <octets>         a request, in hexadecimal digits, as soon as a peer is there to take it; its Hop-by-Hop
 *                         Identifier is freeDiameter's to choose
 *   begin <Session-Id>    the session is there: Re-Auth-Requests for it are answered with success
 *   end <Session-Id>      it is not: they are answered with DIAMETER_UNKNOWN_SESSION_ID
 *
 * Lines of the output:
 *
 *   open <identity>       the connection with a peer has come about
 *   answer <octets>       an answer that freeDiameter hands to the application
 *   dropped <reason>      a message that it does not hand on
 *   asked <octets>        a Re-Auth-Request, which has been answered
 *   ended <Session-Id>    "end" has been done
 *
 * freeDiameter's log goes to standard error. It ends when its input does.
 */

#include <freeDiameter/freeDiameter-host.h>
#include <freeDiameter/libfdcore.h>

#include <ctype.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CREDIT_CONTROL 4
#define GX 16777238
#define S6B 16777272
#define VENDOR_3GPP 10415
#define SESSIONS 64

static char *sessions[SESSIONS];
static pthread_mutex_t sessions_lock = PTHREAD_MUTEX_INITIALIZER;

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "gateway: %s: %s\n", what, why);
	exit(2);
}

static void to_standard_error(int level, const char *format, va_list arguments)
{
	(void)level;
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
}

/* A line of output; whole, for freeDiameter calls from several threads. */
static void tell(const char *kind, const char *text)
{
	flockfile(stdout);
	printf("%s %s\n", kind, text);
	fflush(stdout);
	funlockfile(stdout);
}

static void tell_message(const char *kind, struct msg *message)
{
	uint8_t *octets = NULL;
	size_t length = 0, at;
	char *digits;

	if (fd_msg_bufferize(message, &octets, &length) || !(digits = malloc(2 * length + 1)))
		fail("a message", "cannot be written");
	for (at = 0; at < length; at++)
		sprintf(digits + 2 * at, "%02x", octets[at]);
	tell(kind, digits);
	free(digits);
	free(octets);
}

/* What freeDiameter tells of peers and messages. */
static void on_event(enum fd_hook_type type, struct msg *message, struct peer_hdr *peer, void *other,
                     struct fd_hook_permsgdata *kept, void *data)
{
	(void)kept, (void)data;
	if (type == HOOK_PEER_CONNECT_SUCCESS)
		tell("open", (char *)peer->info.pi_diamid);
	else if (type == HOOK_PEER_CONNECT_FAILED)
		fprintf(stderr, "gateway: no connection: %s\n", other ? (char *)other : "without a reason");
	else
		tell("dropped", message && other ? (char *)other : "octets that are no message");
}

static void on_answer(void *data, struct msg **message)
{
	(void)data;
	tell_message("answer", *message);
	fd_msg_free(*message);
	*message = NULL;
}

static int is_known(const char *session, size_t length)
{
	int at, found = 0;

	pthread_mutex_lock(&sessions_lock);
	for (at = 0; at < SESSIONS; at++)
		found |= sessions[at] && strlen(sessions[at]) == length && !memcmp(sessions[at], session, length);
	pthread_mutex_unlock(&sessions_lock);
	return found;
}

static void begin_session(const char *session)
{
	int at;

	pthread_mutex_lock(&sessions_lock);
	for (at = 0; at < SESSIONS && sessions[at]; at++)
		;
	if (at == SESSIONS || !(sessions[at] = strdup(session)))
		fail("begin", "there are too many sessions");
	pthread_mutex_unlock(&sessions_lock);
}

static void end_session(const char *session)
{
	int at;

	pthread_mutex_lock(&sessions_lock);
	for (at = 0; at < SESSIONS; at++)
		if (sessions[at] && !strcmp(sessions[at], session)) {
			free(sessions[at]);
			sessions[at] = NULL;
		}
	pthread_mutex_unlock(&sessions_lock);
}

/* Answers with success, and does nothing else. */
static int on_re_auth_request(struct msg **message, struct avp *avp, struct session *session, void *data,
                              enum disp_action *action)
{
	union avp_value value = {.u32 = CREDIT_CONTROL};
	struct dict_object *model;
	os0_t name;
	size_t length;
	int known;

	(void)data, (void)action;
	if (fd_sess_getsid(session, &name, &length))
		fail("Re-Auth-Request", "it has no session");
	known = is_known((char *)name, length);
	tell_message("asked", *message);
	if (fd_msg_new_answer_from_req(fd_g_config->cnf_dict, message, 0) ||
	    fd_dict_search(fd_g_config->cnf_dict, DICT_AVP, AVP_BY_NAME, "Auth-Application-Id", &model, ENOENT) ||
	    fd_msg_avp_new(model, 0, &avp) || fd_msg_avp_setvalue(avp, &value) ||
	    fd_msg_avp_add(*message, MSG_BRW_LAST_CHILD, avp) ||
	    fd_msg_rescode_set(*message, known ? "DIAMETER_SUCCESS" : "DIAMETER_UNKNOWN_SESSION_ID", NULL, NULL, 1) ||
	    fd_msg_send(message, NULL, NULL))
		fail("Re-Auth-Request", "it cannot be answered");
	return 0;
}

/* For every other request of credit control: there should be none. */
static int on_any_request(struct msg **message, struct avp *avp, struct session *session, void *data,
                          enum disp_action *action)
{
	(void)message, (void)avp, (void)session, (void)data, (void)action;
	return ENOTSUP;
}

static struct dict_object *application(uint32_t number, char *name)
{
	struct dict_application_data data = {number, name};
	struct dict_object *found = NULL;

	if (fd_dict_search(fd_g_config->cnf_dict, DICT_APPLICATION, APPLICATION_BY_ID, &number, &found, 0) ||
	    (!found && fd_dict_new(fd_g_config->cnf_dict, DICT_APPLICATION, &data, NULL, &found)))
		fail(name, "the application cannot be defined");
	return found;
}

static void advertise(void)
{
	struct dict_object *vendor, *credit_control, *re_auth;
	struct disp_when when = {0};
	vendor_id_t number = VENDOR_3GPP;

	if (fd_dict_search(fd_g_config->cnf_dict, DICT_VENDOR, VENDOR_BY_ID, &number, &vendor, ENOENT) ||
	    fd_dict_search(fd_g_config->cnf_dict, DICT_COMMAND, CMD_BY_NAME, "Re-Auth-Request", &re_auth, ENOENT))
		fail("the dictionaries", "3GPP and Re-Auth-Request are not in them");
	credit_control = application(CREDIT_CONTROL, "Diameter Credit Control Application");
	when.app = credit_control;
	if (fd_disp_register(on_any_request, DISP_HOW_APPID, &when, NULL, NULL))
		fail("credit control", "requests cannot be received");
	when.command = re_auth;
	if (fd_disp_register(on_re_auth_request, DISP_HOW_CC, &when, NULL, NULL) ||
	    fd_disp_app_support(application(GX, "Gx"), vendor, 1, 0) ||
	    fd_disp_app_support(credit_control, NULL, 1, 0) ||
	    fd_disp_app_support(application(S6B, "S6b"), vendor, 1, 0))
		fail("the applications", "they cannot be advertised");
}

static int has_open_peer(void)
{
	struct fd_list *at;
	int found = 0;

	pthread_rwlock_rdlock(&fd_g_peers_rw);
	for (at = fd_g_peers.next; at != &fd_g_peers; at = at->next)
		found |= fd_peer_get_state(at->o) == STATE_OPEN;
	pthread_rwlock_unlock(&fd_g_peers_rw);
	return found;
}

static void send_request(const char *digits)
{
	size_t length = strlen(digits) / 2, at;
	uint8_t *octets = malloc(length + 1);
	struct msg *message = NULL;

	for (at = 0; octets && at < length; at++) {
		char pair[3] = {digits[2 * at], digits[2 * at + 1], 0};
		octets[at] = (uint8_t)strtoul(pair, NULL, 16);
	}
	while (!has_open_peer())
		usleep(1000); /* "open" is told a moment before requests can be sent */
	if (!octets || fd_msg_parse_buffer(&octets, length, &message) ||
	    fd_msg_parse_dict(message, fd_g_config->cnf_dict, NULL) || fd_msg_send(&message, on_answer, NULL))
		fail("send", "this is no message that can be sent");
}

int main(int count, char *arguments[])
{
	struct fd_hook_hdl *hooks;
	char *line = NULL;
	size_t room = 0;

	if (count != 2)
		fail("gateway", "it takes one argument, a configuration file of freeDiameter's");
	if (fd_log_handler_register(to_standard_error) || fd_core_initialize() || fd_core_parseconf(arguments[1]))
		fail("freeDiameter", "cannot be initialised");
	advertise();
	if (fd_hook_register(HOOK_MASK(HOOK_PEER_CONNECT_SUCCESS, HOOK_PEER_CONNECT_FAILED, HOOK_MESSAGE_DROPPED,
	                               HOOK_MESSAGE_PARSING_ERROR, HOOK_MESSAGE_ROUTING_ERROR),
	                     on_event, NULL, NULL, &hooks) ||
	    fd_core_start() || fd_core_waitstartcomplete())
		fail("freeDiameter", "cannot be started");
	while (getline(&line, &room, stdin) > 0) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "send ", 5))
			send_request(line + 5);
		else if (!strncmp(line, "begin ", 6))
			begin_session(line + 6);
		else if (!strncmp(line, "end ", 4))
			end_session(line + 4), tell("ended", line + 4);
		else
			fail("input", "a line is none that it knows");
	}
	free(line);
	return fd_core_shutdown() || fd_core_wait_shutdown_complete();
}
