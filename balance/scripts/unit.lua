-- Write one unit of a customer under its name, below its parent, and as the unit of its account; all or nothing.
--
-- KEYS[1] the unit     KEYS[2] which unit its account is of     KEYS[3] the units below its parent
-- KEYS[4] the units below the parent it had     KEYS[5] how often the structure was changed
-- ARGV[1] the value expected under KEYS[1] ('' : none)     ARGV[2] the new value
-- ARGV[3] the unit's name     ARGV[4] its parent's name ('' : none)
-- Returns {} if it was written, else what is in the way:
-- {'changed'} somebody else was faster, {'account', unit} the account is of that unit,
-- {'cycle'} the unit stands above its new parent, {'parent', unit} there is no such unit.
local current = redis.call('GET', KEYS[1]) or ''
if current ~= ARGV[1] then return {'changed'} end
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[3] then return {'account', holder} end
-- What stands before the name of a unit; in a cluster all of this has one hash tag.
local before = string.sub(KEYS[1], 1, #KEYS[1] - #ARGV[3])
local above = ARGV[4]
while above ~= '' do
  if above == ARGV[3] then return {'cycle'} end
  local value = redis.call('GET', before .. above)
  if not value then return {'parent', above} end
  above = cmsgpack.unpack(value)[4]
end
if KEYS[4] ~= KEYS[3] then redis.call('SREM', KEYS[4], ARGV[3]) end
redis.call('SADD', KEYS[3], ARGV[3])
redis.call('SET', KEYS[2], ARGV[3])
redis.call('SET', KEYS[1], ARGV[2])
-- A unit that is new cannot change who pays for others; those that belong to it are looked at by whoever made it.
if ARGV[1] ~= '' then redis.call('INCR', KEYS[5]) end
return {}
