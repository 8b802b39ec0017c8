-- Write one subscriber under its name and all its identities, or take it out; all or nothing.
--
-- KEYS[1] the subscriber's own key; then the identities it is to have; those it is to lose; the sets it is to leave;
--   the sets it is to enter
-- ARGV[1] the value expected under KEYS[1] ('' : none)     ARGV[2] the new value ('' : take it out)
-- ARGV[3] how many identities it is to have     ARGV[4] how many it is to lose
-- ARGV[5] how many sets it is to leave     ARGV[6] its name, as sets hold it
-- Returns {} if it was written, {0, value} if KEYS[1] holds another value,
-- {n, value} if the n-th identity belongs to somebody else, whose value that is.
local current = redis.call('GET', KEYS[1]) or ''
if current ~= ARGV[1] then return {0, current} end
local wanted, lost, left = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
for k = 2, wanted + 1 do
  local held = redis.call('GET', KEYS[k])
  if held and held ~= ARGV[1] then return {k - 1, held} end
end
local at = wanted + lost + 1
for k = at + 1, at + left do redis.call('SREM', KEYS[k], ARGV[6]) end
for k = at + left + 1, #KEYS do redis.call('SADD', KEYS[k], ARGV[6]) end
for k = wanted + 2, at do
  local held = redis.call('GET', KEYS[k])
  if held and held == ARGV[1] then redis.call('DEL', KEYS[k]) end
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2])
  for k = 2, wanted + 1 do redis.call('SET', KEYS[k], ARGV[2]) end
end
return {}
