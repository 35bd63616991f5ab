"""What runs inside the server: two Lua scripts, each one atomic step within one hash slot.

Layout, version 1 (the number is part of each key: another layout gets another number)::

    mailward:1:{07}:events          stream: n (counts the partition's events), node, seq, net, register, live, at, ends, body
    mailward:1:{07}:seq             hash: node -> its last number|when; "*" -> the last n
    mailward:1:{07}:registers       hash: name -> live|at|ends|node|body
    mailward:1:{07}:registers:ends  sorted set: name by its end
    mailward:1:nodes                hash: node -> time|instance|JSON

Every key has a TTL.  Times are the server's own, of `TIME`: the nodes' clocks may differ.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

PREFIX: Final = "mailward:1:"
NODES: Final = PREFIX + "nodes"
REMEMBERED: Final = 64  # nodes
LENGTH: Final = 10_000  # events a partition's stream keeps
REGISTERS: Final = 20_000  # registers a partition keeps
QUIET: Final = 15  # seconds after which another instance may take a node's name


class Script(NamedTuple):
    """A script and the name by which the server remembers it."""

    text: str
    sha: str


def _script(text: str) -> Script:
    return Script(text, hashlib.sha1(text.encode()).hexdigest())  # noqa: S324 - Redis names scripts so


def keys(partition: int) -> tuple[str, str, str, str]:
    """Return the keys of a partition, in the order of the script's KEYS."""
    tag = f"{PREFIX}{{{partition:02}}}:"
    return tag + "events", tag + "seq", tag + "registers", tag + "registers:ends"


# ARGV: node, the number of ours that the server must have, the stream's TTL, then per event
# seq, net, register, live (1 or 0), at, ends, body.  Returns our last number; where the server has forgotten what it
# acknowledged, -1 - our last number, and has done nothing.  A number that was seen before is passed over.
# The last number is written last: what an error interrupts is sent again, and readers know (node, seq).
PUBLISH: Final = _script(
    """
local events, seqs, registers, over = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local node, keep = ARGV[1], ARGV[3]
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6

local function number(text)
  if text == 'inf' then return math.huge end
  return tonumber(text)
end

local entry = redis.call('HGET', seqs, node)
local last = tonumber(entry and string.match(entry, '^%d+') or '') or 0
if last < tonumber(ARGV[2]) then return -1 - last end

local function drop(name)
  redis.call('HDEL', registers, name)
  redis.call('ZREM', over, name)
end

for _, name in ipairs(redis.call('ZRANGEBYSCORE', over, '-inf', string.format('%.6f', now), 'LIMIT', 0, 100)) do
  drop(name)
end

-- Puts a register; false where that changes nothing.
local function put(name, live, at, ends, body)
  local text = redis.call('HGET', registers, name)
  local by = node
  local old_live, old_at, old_ends, old_node, old_body =
    string.match(text or '', '^([01])|([^|]*)|([^|]*)|([^|]*)|(.*)$')
  if old_live and number(old_at) and number(old_ends) then
    local newer, longer = number(at) > number(old_at), number(ends) > number(old_ends)
    local same = number(at) == number(old_at)
    if old_live ~= live then
      if not (newer or (same and live == '0')) then return false end
      if live == '0' and not longer then ends = old_ends end
    elseif string.sub(name, 1, 4) == 'ban ' then
      if not (newer or longer) then return false end
      if not newer then at = old_at end
      if number(ends) < number(old_ends) then ends, by, body = old_ends, old_node, old_body end
    elseif not (newer or (same and longer)) then
      return false
    end
  elseif not text and redis.call('HLEN', registers) >= %(registers)d then
    drop(redis.call('ZRANGE', over, 0, 0)[1] or name)
  end
  redis.call('HSET', registers, name, table.concat({live, at, ends, by, body}, '|'))
  redis.call('ZADD', over, ends, name)
  return true
end

local before, latest = last, nil
local n = tonumber(redis.call('HGET', seqs, '*') or 0) or 0
local added = false
for i = 4, #ARGV, 7 do
  local seq, net, register, live, at, ends, body = unpack(ARGV, i, i + 6)
  if tonumber(seq) > last then
    last, latest = tonumber(seq), seq
    if register == '' or put(register, live, at, ends, body) then
      n, added = n + 1, true
      redis.call('XADD', events, 'MAXLEN', '~', '%(length)d', '*', 'n', string.format('%.0f', n), 'node', node, 'seq', seq,
        'net', net, 'register', register, 'live', live, 'at', at, 'ends', ends, 'body', body)
    end
  end
end

if added then
  redis.call('HSET', seqs, '*', string.format('%.0f', n))
  redis.call('EXPIRE', events, keep)
end
if latest then
  if before == 0 and redis.call('HLEN', seqs) > %(remembered)d then
    local oldest, since
    local all = redis.call('HGETALL', seqs)
    for i = 1, #all, 2 do
      local seen = tonumber(string.match(all[i + 1], '|(.*)$') or 'x')
      if seen and (not since or seen < since) then oldest, since = all[i], seen end
    end
    if oldest then redis.call('HDEL', seqs, oldest) end
  end
  redis.call('HSET', seqs, node, latest .. '|' .. time[1])
end
redis.call('EXPIRE', seqs, 30 * 86400)
local final = redis.call('ZREVRANGE', over, 0, 0, 'WITHSCORES')[2]
if final then
  local ttl = math.ceil(math.max(86400, math.min(number(final) - now + 86400, 400 * 86400)))
  redis.call('EXPIRE', registers, ttl)
  redis.call('EXPIRE', over, ttl)
end
return last
""".replace("%(registers)d", str(REGISTERS))
    .replace("%(length)d", str(LENGTH))
    .replace("%(remembered)d", str(REMEMBERED))
)

# ARGV: node, instance, JSON.  Returns the time, then name and entry of every node; or, where another instance of the
# name lives, "taken" and the seconds since its last sign of life, and has done nothing.
BEAT: Final = _script(
    """
local nodes, node, instance = KEYS[1], ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6

local mine = redis.call('HGET', nodes, node)
if mine then
  local at, by = string.match(mine, '^([^|]*)|([^|]*)|')
  if by ~= instance and now - (tonumber(at) or 0) < %(quiet)d then
    return {'taken', string.format('%.1f', now - (tonumber(at) or 0))}
  end
end
redis.call('HSET', nodes, node, string.format('%.3f|', now) .. instance .. '|' .. ARGV[3])

local all = redis.call('HGETALL', nodes)
local kept = {}
for i = 1, #all, 2 do
  local age = now - (tonumber(string.match(all[i + 1], '^[^|]*')) or 0)
  if age > 86400 then
    redis.call('HDEL', nodes, all[i])
  else
    kept[#kept + 1] = {age, all[i], all[i + 1]}
  end
end
table.sort(kept, function(a, b) return a[1] < b[1] end)
local answer = {string.format('%.3f', now)}
for i, entry in ipairs(kept) do
  if i > %(remembered)d then
    redis.call('HDEL', nodes, entry[2])
  else
    answer[#answer + 1] = entry[2]
    answer[#answer + 1] = entry[3]
  end
end
redis.call('EXPIRE', nodes, 86400)
return answer
""".replace("%(quiet)d", str(QUIET)).replace("%(remembered)d", str(REMEMBERED))
)
