-- Decides all checks of a request at once: all are charged, or none is.
--
-- KEYS[i] is the counter of check i; ARGV[i] says how it counts, eight numbers:
--   algorithm (1 bucket, 2 fixed window, 3 sliding window, 4 sliding log), window in ms, limit,
--   cost, what it takes from a bucket (ms, parts), and what the bucket holds (ms, parts).
-- A part is 1/limit ms: so all sums are of integers. Every number stays below 2^53, up to which
-- Lua's doubles count exactly.
--
-- Answers {charged, keys of a wrong kind that were deleted, and three numbers for each check}:
-- its state before it was charged, from which the caller makes its verdict.

local clock = redis.call('TIME')
clock = clock[1] * 1000 + math.floor(clock[2] / 1000)

local healed = 0

-- A key that somebody else has put there cannot be counted on: it is deleted.
local function ask(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) == 'table' and answer.err then
    if not string.find(answer.err, 'WRONGTYPE', 1, true) then return nil, answer end
    redis.call('DEL', key)
    healed = healed + 1
    return redis.call(command, key, ...)
  end
  return answer
end

local function numbers(text, pattern)
  if not text then return end
  local a, b, c = string.match(text, pattern)
  return tonumber(a), tonumber(b), tonumber(c)
end

local function put(key, ttl, format, ...)
  redis.call('SET', key, string.format(format, ...), 'PX', string.format('%.0f', ttl))
end

-- floor(a * b / c) for a < 2^32 and b <= c < 2^32, where a * b may be too large for a double.
local function share(a, b, c)
  local high = math.floor(a / 65536) * b
  local whole = math.floor(high / c)
  local low = (high - whole * c) * 65536 + (a % 65536) * b
  return whole * 65536 + math.floor(low / c)
end

local look, charge = {}, {}

-- Buckets: when the debt is paid off, in ms and parts.
look[1] = function(key, c)
  local value, failed = ask('GET', key)
  if failed then return failed end
  local due, parts = numbers(value, '^(%d+) (%d+)$')
  local ms = (due or 0) - clock
  if ms < 0 then ms, parts = 0, 0 end
  parts = math.min(parts or 0, c.limit - 1)
  if ms > c.most_ms or (ms == c.most_ms and parts > c.most_parts) then
    ms, parts = c.most_ms, c.most_parts
  end
  c.a, c.b, c.c = ms, parts, 0
  ms, parts = ms + c.takes_ms, parts + c.takes_parts
  if parts >= c.limit then ms, parts = ms + 1, parts - c.limit end
  c.ms, c.parts = ms, parts
  c.fits = ms < c.most_ms or (ms == c.most_ms and parts <= c.most_parts)
end

charge[1] = function(key, c)
  put(key, c.ms + 1001, '%.0f %.0f', clock + c.ms, c.parts)
end

-- Fixed window: its beginning, and the cost in it.
look[2] = function(key, c)
  local value, failed = ask('GET', key)
  if failed then return failed end
  local start, count = numbers(value, '^(%d+) (%d+)$')
  local now = math.max(clock, start or 0)
  c.start = now - now % c.window
  if start ~= c.start then count = 0 end
  c.a, c.b, c.c = count, now - c.start, 0
  c.fits = count + c.cost <= c.limit
end

charge[2] = function(key, c)
  put(key, c.window - c.b + 1000, '%.0f %.0f', c.start, c.a + c.cost)
end

-- Sliding window: the beginning of the current window, the cost in it and in the one before.
look[3] = function(key, c)
  local value, failed = ask('GET', key)
  if failed then return failed end
  local start, current, previous = numbers(value, '^(%d+) (%d+) (%d+)$')
  local now = math.max(clock, start or 0)
  c.start = now - now % c.window
  if start == c.start - c.window then
    current, previous = 0, current
  elseif start ~= c.start then
    current, previous = 0, 0
  end
  c.a, c.b, c.c = current, previous, now - c.start
  c.fits = current + share(previous, c.window - c.c, c.window) + c.cost <= c.limit
end

charge[3] = function(key, c)
  put(key, 2 * c.window - c.c + 1000, '%.0f %.0f %.0f', c.start, c.a + c.cost, c.b)
end

-- Sliding log: a sorted set of what was let through, by time. A member is the sum of all costs up
-- to it, with as many digits as keep its order, and its own cost: so the cost of any stretch is
-- known from its two ends.
local function entry(key, rank)
  local found = redis.call('ZRANGE', key, rank, rank, 'WITHSCORES')
  local sum, cost = numbers(found[1], '^(%d+) (%d+)$')
  return sum or 0, cost or 0, tonumber(found[2]) or 0
end

-- When so much has left the window that the check is admitted.
local function room_at(key, c, target)
  local low, high = 0, redis.call('ZCARD', key) - 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if entry(key, middle) >= target then high = middle else low = middle + 1 end
  end
  local _, _, at = entry(key, low)
  return at + c.window
end

look[4] = function(key, c)
  local found, failed = ask('ZRANGE', key, -1, -1, 'WITHSCORES')
  if failed then return failed end
  local now = math.max(clock, tonumber(found[2]) or 0)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now - c.window))
  local sum, _, last = entry(key, -1)
  local first, cost = entry(key, 0)
  local count = sum - first + cost
  c.now, c.sum = now, sum
  c.a, c.b, c.c = count, sum > 0 and last + c.window - now or 0, 0
  c.fits = count + c.cost <= c.limit
  if not c.fits and c.cost <= c.limit then
    c.c = room_at(key, c, sum - c.limit + c.cost) - now
  end
end

charge[4] = function(key, c)
  local member = string.format('%016.0f %.0f', c.sum + c.cost, c.cost)
  redis.call('ZADD', key, string.format('%.0f', c.now), member)
  redis.call('PEXPIRE', key, string.format('%.0f', c.window + 1000))
end

local checks, goes_on = {}, true
for i, key in ipairs(KEYS) do
  local n = {}
  for number in string.gmatch(ARGV[i], '%d+') do n[#n + 1] = tonumber(number) end
  local c = {
    algorithm = n[1], window = n[2], limit = n[3], cost = n[4],
    takes_ms = n[5], takes_parts = n[6], most_ms = n[7], most_parts = n[8],
  }
  local failed = look[c.algorithm](key, c)
  if failed then return failed end
  if not c.fits then goes_on = false end
  checks[i] = c
end

local answer = {goes_on and 1 or 0, healed}
for i, c in ipairs(checks) do
  if goes_on and c.cost > 0 then charge[c.algorithm](KEYS[i], c) end
  answer[3 * i], answer[3 * i + 1], answer[3 * i + 2] = c.a, c.b, c.c
end
return answer
