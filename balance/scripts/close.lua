-- Take records out of the journal of a lane whose sums are kept instead.
--
-- KEYS[1] journal of the lane     KEYS[2] its closed sums     KEYS[3] lease on the journal
-- ARGV[1] token of the lease      ARGV[2] last entry closed so far ('' : none)      ARGV[3] last entry to close now
-- ARGV[4] last entry to close now, and the smallest after it: what the stream keeps begins there
-- then pairs: account, its sums with the records up to ARGV[3]
-- Returns 1; or 0, and nothing is changed: the lease has gone to somebody else, or somebody else has closed meanwhile.
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
if (redis.call('HGET', KEYS[2], '') or '') ~= ARGV[2] then return 0 end
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[2], '', ARGV[3])
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[4])
return 1
