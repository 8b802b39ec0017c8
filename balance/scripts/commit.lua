-- Write the plans of one commit, each all or nothing, independent of the others.
--
-- KEYS[1] journal of the lane     KEYS[2] expiry index of the lane     KEYS[3] outbox of the lane
-- KEYS[4] and on: the account of each plan, none twice; then the keys of the lists below
-- ARGV[1] number of plans     ARGV[2] to ARGV[9] number of items in each of the lists below, in their order
-- ARGV[10] and on: for each plan three:
--   expected version, 8 octets ('' : the account must not exist)
--   new account value ('' : leave it)     journal record ('' : none, together with an empty value only)
-- then the lists; an item begins with the index of its plan, from 0, and has these further arguments:
--   first        key of its own: the session there must not have ended already; of several of a plan the first that has
--                is told
--   ended        key of its own: keep an ended session; the session; how long, ms
--   opened       key of its own: enter an open session into the directory; account id
--   closed       key of its own: how long the directory is to know the session yet, ms
--   wakes        wake-up time in the expiry index, ms, '0' removes the account; account id
--   records      entry of the outbox
--   spent        one key for all, the budgets of the lane: amount that one of them loses; its name
--   transitions  one key for all, the stream of transitions: entry
-- Returns a list of the plans that were NOT written, in triples: index from 0, reason, value;
--   reason 0: the version differs, value is the account as it is now ('' if there is none)
--   reason 1: the session ended before, value is the ended session
-- A script that fails midway keeps its earlier writes: so every check comes before the first write, and the streams,
-- the only writes that can fail for want of memory or for a wrong type, are written first.
-- Numbers are handed on as the strings they came as: to print a Lua number costs more than what is done with it.
local call = redis.call
local refused, out, refusals = {}, {}, 0
local plans, firsts, endeds, openeds, closeds = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]),
  tonumber(ARGV[4]), tonumber(ARGV[5])
local first = 9 + 3 * plans
local ended = first + firsts
local opened = ended + 3 * endeds
local closed = opened + 2 * openeds
local wake = closed + 2 * closeds
local record = wake + 3 * tonumber(ARGV[6])
local spent = record + 2 * tonumber(ARGV[7])
local transition = spent + 3 * tonumber(ARGV[8])
local key = 3 + plans

local function refuse(plan, reason, value)
  out[plan] = true
  refused[refusals + 1], refused[refusals + 2], refused[refusals + 3] = tonumber(plan), reason, value
  refusals = refusals + 3
end

if firsts > 0 then
  local known = call('MGET', unpack(KEYS, key + 1, key + firsts))
  for i = 1, firsts do
    local plan = ARGV[first + i]
    if known[i] and not out[plan] then refuse(plan, 1, known[i]) end
  end
  key = key + firsts
end
local records, values, n = {}, {}, 0
local some = refusals > 0
for i = 1, plans do
  local account, at = KEYS[3 + i], 7 + 3 * i
  if not (some and out[tostring(i - 1)]) then
    if call('GETRANGE', account, '0', '7') ~= ARGV[at] then
      refuse(tostring(i - 1), 0, call('GET', account) or '')
    elseif ARGV[at + 1] ~= '' then
      records[n + 1], records[n + 2] = 'r', ARGV[at + 2]
      values[n + 1], values[n + 2] = account, ARGV[at + 1]
      n = n + 2
    end
  end
end
if n > 0 then call('XADD', KEYS[1], '*', unpack(records)) end
local outgoing, c = {}, 0
for at = record + 1, spent, 2 do
  if not out[ARGV[at]] then
    outgoing[c + 1], outgoing[c + 2] = 'c', ARGV[at + 1]
    c = c + 2
  end
end
if c > 0 then call('XADD', KEYS[3], '*', unpack(outgoing)) end
for at = transition + 1, #ARGV, 2 do
  if not out[ARGV[at]] then call('XADD', KEYS[#KEYS], '*', 't', ARGV[at + 1]) end
end
for i = 1, openeds do
  local at = opened + 2 * i
  if not out[ARGV[at - 1]] then
    values[n + 1], values[n + 2] = KEYS[key + endeds + i], ARGV[at]
    n = n + 2
  end
end
if n > 0 then call('MSET', unpack(values)) end
for i = 1, endeds do
  local at = ended + 3 * i
  if not out[ARGV[at - 2]] then call('SET', KEYS[key + i], ARGV[at - 1], 'PX', ARGV[at]) end
end
key = key + endeds + openeds
for i = 1, closeds do
  local at = closed + 2 * i
  if not out[ARGV[at - 1]] then call('PEXPIRE', KEYS[key + i], ARGV[at]) end
end
local moved, gone, m = {}, {}, 0
for at = wake + 1, record, 3 do
  if not out[ARGV[at]] then
    if ARGV[at + 1] == '0' then
      gone[#gone + 1] = ARGV[at + 2]
    else
      moved[m + 1], moved[m + 2] = ARGV[at + 1], ARGV[at + 2]
      m = m + 2
    end
  end
end
if m > 0 then call('ZADD', KEYS[2], unpack(moved)) end
if #gone > 0 then call('ZREM', KEYS[2], unpack(gone)) end
for at = spent + 1, transition, 3 do
  -- Not to fail midway: a total that 64 bits cannot hold stays as it is.
  if not out[ARGV[at]] then redis.pcall('HINCRBY', KEYS[key + closeds + 1], ARGV[at + 2], ARGV[at + 1]) end
end
return refused
