-- Write the plans of one commit, each all or nothing, independent of the others.
--
-- KEYS[1] journal of the lane     KEYS[2] expiry index of the lane     KEYS[3] outbox of the lane
-- KEYS[4] and on: the account of each plan, none twice; then the keys that extras refer to
-- ARGV[1] number of plans; then for each plan three:
--   expected version, 8 octets ('' : the account must not exist)
--   new account value ('' : leave it)     journal record ('' : none, together with an empty value only)
-- then extras, five each: index of the plan from 0, kind, position in KEYS ('' : no key), value, argument
--   f  key: the session there must not have ended already; of several the first that has is told
--   e  key: keep an ended session; value: the session; argument: how long, ms
--   w  expiry index; value: wake-up time in ms, '0' removes the account; argument: account id
--   o  outbox; value: entry
--   b  key: the budgets of the lane; value: amount that one of them loses; argument: its name
--   t  key: stream of transitions; value: entry
-- Returns a list of the plans that were NOT written, in triples: index from 0, reason, value;
--   reason 0: the version differs, value is the account as it is now ('' if there is none)
--   reason 1: the session ended before, value is the ended session
-- A script that fails midway keeps its earlier writes: so every check comes before the first write, and the streams,
-- the only writes that can fail for want of memory or for a wrong type, are written first.
local refused, ended, accepted = {}, {}, {}
local records, outgoing, values = {}, {}, {}
local plans = tonumber(ARGV[1])
local extras = 2 + 3 * plans
for e = extras, #ARGV, 5 do
  if ARGV[e + 1] == 'f' then
    local plan = tonumber(ARGV[e])
    ended[plan] = ended[plan] or redis.call('GET', KEYS[tonumber(ARGV[e + 2])]) or nil
  end
end
for i = 0, plans - 1 do
  local account, a = KEYS[4 + i], 2 + 3 * i
  if ended[i] then
    refused[#refused + 1] = i
    refused[#refused + 1] = 1
    refused[#refused + 1] = ended[i]
  elseif redis.call('GETRANGE', account, 0, 7) ~= ARGV[a] then
    refused[#refused + 1] = i
    refused[#refused + 1] = 0
    refused[#refused + 1] = redis.call('GET', account) or ''
  else
    accepted[i] = true
    if ARGV[a + 1] ~= '' then
      values[#values + 1] = account
      values[#values + 1] = ARGV[a + 1]
      records[#records + 1] = 'r'
      records[#records + 1] = ARGV[a + 2]
    end
  end
end
for e = extras, #ARGV, 5 do
  if ARGV[e + 1] == 'o' and accepted[tonumber(ARGV[e])] then
    outgoing[#outgoing + 1] = 'c'
    outgoing[#outgoing + 1] = ARGV[e + 3]
  elseif ARGV[e + 1] == 't' and accepted[tonumber(ARGV[e])] then
    redis.call('XADD', KEYS[tonumber(ARGV[e + 2])], '*', 't', ARGV[e + 3])
  end
end
if #records > 0 then redis.call('XADD', KEYS[1], '*', unpack(records)) end
if #outgoing > 0 then redis.call('XADD', KEYS[3], '*', unpack(outgoing)) end
if #values > 0 then redis.call('MSET', unpack(values)) end
for e = extras, #ARGV, 5 do
  local kind = ARGV[e + 1]
  if accepted[tonumber(ARGV[e])] then
    if kind == 'e' then
      redis.call('SET', KEYS[tonumber(ARGV[e + 2])], ARGV[e + 3], 'PX', ARGV[e + 4])
    elseif kind == 'w' then
      if ARGV[e + 3] == '0' then
        redis.call('ZREM', KEYS[2], ARGV[e + 4])
      else
        redis.call('ZADD', KEYS[2], ARGV[e + 3], ARGV[e + 4])
      end
    elseif kind == 'b' then
      -- Not to fail midway: a total that 64 bits cannot hold stays as it is.
      redis.pcall('HINCRBY', KEYS[tonumber(ARGV[e + 2])], ARGV[e + 4], ARGV[e + 3])
    end
  end
end
return refused
