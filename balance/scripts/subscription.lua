-- Write one Sy subscription, or strike it, together with the answer to the request that wanted it; all or nothing.
--
-- KEYS[1] the subscriptions of its account     KEYS[2] which account it is kept with
-- KEYS[3] the answer to the request     KEYS[4] how many subscriptions there are
-- ARGV[1] Session-Id     ARGV[2] the value expected ('' : none)     ARGV[3] the new value ('' : strike it)
-- ARGV[4] the account     ARGV[5] the answer ('' : no request wanted it)     ARGV[6] how long it is kept, ms
-- Returns {'written', number of subscriptions}, {'answered', answer} if the request has its answer already, or
-- {'changed', value} if the subscription is another by now ('' : there is none).
local answer = ARGV[5] ~= '' and redis.call('GET', KEYS[3])
if answer then return {'answered', answer} end
local current = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if current ~= ARGV[2] then return {'changed', current} end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  redis.call('SET', KEYS[2], ARGV[4])
  if current == '' then redis.call('INCR', KEYS[4]) end
elseif current ~= '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  if redis.call('GET', KEYS[2]) == ARGV[4] then redis.call('DEL', KEYS[2]) end
  redis.call('DECR', KEYS[4])
end
if ARGV[5] ~= '' then redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[6]) end
return {'written', redis.call('GET', KEYS[4]) or '0'}
