-- Take a notice up, unless one of that name was taken up before.
--
-- KEYS[1] that it was seen     KEYS[2] the notice     KEYS[3] the queue it enters     KEYS[4] the list it enters
-- KEYS[5] counts
-- ARGV[1] the notice's name     ARGV[2] its value     ARGV[3] when it is due, ms     ARGV[4] its time in the list, ms
-- ARGV[5] how long its name is remembered, ms     ARGV[6] the count of those seen before
-- Returns 1 if it was taken up, 0 if it was before.
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HINCRBY', KEYS[5], ARGV[6], 1)
  return 0
end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1])
redis.call('SET', KEYS[1], '', 'PX', ARGV[5])
return 1
