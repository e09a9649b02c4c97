-- Why a request failed, for programs: {"code", "message", "hint"}. `reason` is the line for people.
ALTER TABLE containers ADD COLUMN error TEXT;
UPDATE containers SET error = reason, reason = json_extract(reason, '$.message')
  WHERE state = 'failed' AND reason LIKE '{%' AND json_valid(reason);

-- Whether the end that was asked for is SIGKILL at once: a stop may become a kill later.
ALTER TABLE containers ADD COLUMN stop_kill INTEGER NOT NULL DEFAULT 0 CHECK (stop_kill IN (0, 1));
UPDATE containers SET stop_kill = 1 WHERE state = 'stopping' AND reason = 'killed';

-- Names the data directory that a worker runs on: another one can't take its name while it lives.
ALTER TABLE workers ADD COLUMN instance TEXT;
