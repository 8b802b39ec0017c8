-- Write the plans of one commit, each all or nothing, independent of the others.
--
-- KEYS[1] journal of the lane     KEYS[2] expiry index of the lane     KEYS[3] outbox of the lane
-- then for each plan: account key, key of the ended session it names (or the account key again);
--   no account may appear twice
-- ARGV[1] how many plans have something for the outbox, then for each of those: index of the plan from 0, entry;
-- then for each plan, eight:
--   1 account id            2 expected version, 8 octets ('' : the account must not exist)
--   3 new account value ('' : leave it)
--   4 wake-up time in ms ('' : leave the index, '0' : remove the account from it)
--   5 journal record ('' : none)
--   6 '1' if the session must not have ended already
--   7 value of the ended session to keep ('' : none)     8 how long to keep it, ms
-- Returns a list of the plans that were NOT written, in triples: index from 0, reason, value;
--   reason 0: the version differs, value is the account as it is now ('' if there is none)
--   reason 1: the session ended before, value is the ended session
-- A script that fails midway keeps its earlier writes: so every check comes before the first write, and the journal,
-- the only write that can fail for want of memory or for a wrong type, is written first.
local refused, accepted, written, records = {}, {}, {}, {}
local plans, outgoing = (#KEYS - 3) / 2, 2 * tonumber(ARGV[1])
local base = 1 + outgoing
for i = 0, plans - 1 do
  local account, a = KEYS[4 + 2 * i], base + 8 * i
  local known = ARGV[a + 6] == '1' and redis.call('GET', KEYS[5 + 2 * i])
  if known then
    refused[#refused + 1] = i
    refused[#refused + 1] = 1
    refused[#refused + 1] = known
  elseif redis.call('GETRANGE', account, 0, 7) ~= ARGV[a + 2] then
    refused[#refused + 1] = i
    refused[#refused + 1] = 0
    refused[#refused + 1] = redis.call('GET', account) or ''
  else
    accepted[#accepted + 1] = i
    written[i] = true
    if ARGV[a + 5] ~= '' then
      records[#records + 1] = 'r'
      records[#records + 1] = ARGV[a + 5]
    end
  end
end
if #records > 0 then redis.call('XADD', KEYS[1], '*', unpack(records)) end
if outgoing > 0 then
  local entries = {}
  for j = 2, outgoing, 2 do
    if written[tonumber(ARGV[j])] then
      entries[#entries + 1] = 'c'
      entries[#entries + 1] = ARGV[j + 1]
    end
  end
  if #entries > 0 then redis.call('XADD', KEYS[3], '*', unpack(entries)) end
end
for _, i in ipairs(accepted) do
  local a = base + 8 * i
  if ARGV[a + 4] == '0' then
    redis.call('ZREM', KEYS[2], ARGV[a + 1])
  elseif ARGV[a + 4] ~= '' then
    redis.call('ZADD', KEYS[2], ARGV[a + 4], ARGV[a + 1])
  end
  if ARGV[a + 3] ~= '' then redis.call('SET', KEYS[4 + 2 * i], ARGV[a + 3]) end
  if ARGV[a + 7] ~= '' then redis.call('SET', KEYS[5 + 2 * i], ARGV[a + 7], 'PX', ARGV[a + 8]) end
end
return refused
