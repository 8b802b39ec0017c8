-- Enter a transfer in the list of those that are not finished, or strike one that has come to nothing.
--
-- KEYS[1] the list     KEYS[2] what is remembered of its debit
-- ARGV[1] the transfer's name     ARGV[2] the transfer ('' : strike it, unless it has been debited)
-- Returns how far it has come, and the transfer as the list has it ('' : it is not there):
-- 'new' it was entered, 'entered' it was there, 'debited' it was there and has been debited, 'finished' it is not there
-- as it is done.
local known = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if redis.call('EXISTS', KEYS[2]) == 1 then
  return {known == '' and 'finished' or 'debited', known}
end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return {'new', ''}
end
if known ~= '' then return {'entered', known} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {'new', ARGV[2]}
