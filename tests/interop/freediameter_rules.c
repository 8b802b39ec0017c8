/* What freeDiameter thinks of Diameter messages: its own parser, dictionaries and ABNF rules, without any peer.
 *
 *   cc -o freediameter_rules freediameter_rules.c -lfdcore -lfdproto -ldl
 *   freediameter_rules dict_nasreq.fdx dict_dcca.fdx ... < messages
 *
 * The arguments are dictionary extensions, each after those it needs; a name without "/" is looked for where
 * freeDiameter keeps its extensions. Each line of the input is one message in hexadecimal digits. Each line of the
 * output is the verdict on one message, then what else there is to say of it, separated by tabs:
 *
 *   accepted
 *   refused <error> <path of the AVP at fault>[: <message>]
 *   unknown <M or -> <path>         an AVP that is in no dictionary; freeDiameter keeps it as it is
 *   flags <sent> <wanted> <path>    an AVP whose flags are not those of the dictionary, which freeDiameter lets pass
 *
 * A path is the names of the AVPs from the message inwards, joined by "/"; an AVP without a name is its code and its
 * vendor, "9999:10415". An AVP that is missing stands there alone. freeDiameter's log goes to standard error.
 */

#include <freeDiameter/freeDiameter-host.h>
#include <freeDiameter/libfdcore.h>

#include <ctype.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_LENGTH 20

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "freediameter_rules: %s: %s\n", what, why);
	exit(2);
}

static void to_standard_error(int level, const char *format, va_list arguments)
{
	(void)level;
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
}

/* What fd_ext_load does for an extension, without the configuration file that it takes the names from. */
static void load(const char *name)
{
	char path[4096];
	int (*initialise)(int, int, char *);
	void *extension;

	snprintf(path, sizeof path, "%s%s", strchr(name, '/') ? "" : DEFAULT_EXTENSIONS_PATH "/", name);
	extension = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
	if (!extension)
		fail(name, dlerror());
	initialise = (int (*)(int, int, char *))dlsym(extension, "fd_ext_init");
	if (!initialise)
		fail(name, dlerror());
	if (initialise(FD_PROJECT_VERSION_MAJOR, FD_PROJECT_VERSION_MINOR, NULL))
		fail(name, "its definitions cannot be loaded; does another one have to come first?");
}

/* The definition of an AVP; 0 if the dictionaries have none. */
static int definition(struct avp *avp, struct dict_avp_data *data)
{
	struct dict_object *model = NULL;

	return fd_msg_model(avp, &model) == 0 && model && fd_dict_getval(model, data) == 0;
}

static void print_path(struct avp *avp)
{
	struct dict_avp_data data;
	struct avp_hdr *header = NULL;
	msg_or_avp *parent = NULL;

	if (fd_msg_avp_hdr(avp, &header))
		return; /* the message itself */
	if (fd_msg_browse(avp, MSG_BRW_PARENT, &parent, NULL) == 0 && parent &&
	    fd_msg_avp_hdr(parent, &header) == 0) {
		print_path(parent);
		putchar('/');
	}
	fd_msg_avp_hdr(avp, &header);
	if (definition(avp, &data))
		fputs(data.avp_name, stdout);
	else
		printf("%u:%u", header->avp_code, header->avp_flags & AVP_FLAG_VENDOR ? header->avp_vendor : 0);
}

static void print_remarks(struct msg *message)
{
	struct dict_avp_data data;
	struct avp_hdr *header;
	struct avp *avp = NULL;
	msg_or_avp *at = message;

	while (fd_msg_browse(at, MSG_BRW_WALK, &avp, NULL) == 0 && avp) {
		fd_msg_avp_hdr(avp, &header);
		if (!definition(avp, &data)) {
			printf("\tunknown %c ", header->avp_flags & AVP_FLAG_MANDATORY ? 'M' : '-');
			print_path(avp);
		} else if ((header->avp_flags & data.avp_flag_mask) != data.avp_flag_val) {
			printf("\tflags %02x %02x ", header->avp_flags,
			       (header->avp_flags & ~data.avp_flag_mask) | data.avp_flag_val);
			print_path(avp);
		}
		at = avp;
	}
}

static void judge(uint8_t *octets, size_t length)
{
	struct fd_pei error = {0};
	struct msg *message = NULL;

	if (length < HEADER_LENGTH || fd_msg_parse_buffer(&octets, length, &message)) {
		free(octets);
		puts("refused its AVPs cannot be told apart");
		return;
	}
	if (fd_msg_parse_dict(message, fd_g_config->cnf_dict, &error) == 0 &&
	    fd_msg_parse_rules(message, fd_g_config->cnf_dict, &error) == 0) {
		fputs("accepted", stdout);
		print_remarks(message);
	} else {
		printf("refused %s ", error.pei_errcode ? error.pei_errcode : "without a reason");
		if (error.pei_avp)
			print_path(error.pei_avp);
		if (error.pei_message)
			printf(": %s", error.pei_message);
		if (error.pei_avp_free)
			fd_msg_free(error.pei_avp);
	}
	putchar('\n');
	fd_msg_free(message);
}

/* The octets of a line, to be freed by the caller; NULL if the line is something else. */
static uint8_t *from_hexadecimal(const char *line, size_t digits)
{
	uint8_t *octets = malloc(digits / 2 + 1);
	size_t at;

	for (at = 0; octets && at < digits; at += 2) {
		char pair[3] = {line[at], line[at + 1], 0};
		if (!isxdigit((unsigned char)pair[0]) || !isxdigit((unsigned char)pair[1])) {
			free(octets);
			return NULL;
		}
		octets[at / 2] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return octets;
}

int main(int count, char *arguments[])
{
	char *line = NULL;
	size_t room = 0;
	int at;

	if (fd_log_handler_register(to_standard_error) || fd_core_initialize())
		fail("freeDiameter", "cannot be initialised");
	for (at = 1; at < count; at++)
		load(arguments[at]);
	while (getline(&line, &room, stdin) > 0) {
		size_t digits = strcspn(line, "\n");
		uint8_t *octets = digits % 2 ? NULL : from_hexadecimal(line, digits);
		if (!octets)
			fail("input", "a line is no message in hexadecimal digits");
		judge(octets, digits / 2);
	}
	free(line);
	return 0;
}
