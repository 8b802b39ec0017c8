-- Write what became of a notice, if nobody else has written it meanwhile; all or nothing.
--
-- KEYS[1] the notice     KEYS[2] the queue it was in     KEYS[3] the queue it is to be in
-- KEYS[4] the list it was in     KEYS[5] the list it is to be in     KEYS[6] counts
-- ARGV[1] the value expected under KEYS[1]     ARGV[2] the new value     ARGV[3] the notice's name
-- ARGV[4] when it is due, ms ('' : in no queue any more)     ARGV[5] its time in the list, ms
-- ARGV[6] how many the list holds at most ('' : any number)     ARGV[7] what keys of notices begin with
-- ARGV[8] and on: counts to raise by one
-- Returns 1 if it was written, 0 if the value is another.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
if KEYS[2] ~= KEYS[3] or ARGV[4] == '' then redis.call('ZREM', KEYS[2], ARGV[3]) end
if ARGV[4] ~= '' then redis.call('ZADD', KEYS[3], ARGV[4], ARGV[3]) end
if KEYS[4] ~= KEYS[5] then redis.call('ZREM', KEYS[4], ARGV[3]) end
redis.call('ZADD', KEYS[5], ARGV[5], ARGV[3])
if ARGV[6] ~= '' then
  local over = redis.call('ZCARD', KEYS[5]) - tonumber(ARGV[6])
  if over > 0 then
    -- A bound that was lowered is reached little by little.
    local oldest = redis.call('ZPOPMIN', KEYS[5], math.min(over, 100))
    for i = 1, #oldest, 2 do redis.call('DEL', ARGV[7] .. oldest[i]) end
  end
end
for i = 8, #ARGV do redis.call('HINCRBY', KEYS[6], ARGV[i], 1) end
return 1
