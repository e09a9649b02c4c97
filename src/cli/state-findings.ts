import { accessSync, constants, existsSync, type Stats, statfsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Config, dataLayout, formatBytes } from '../config/index.ts';
import { DATABASE_FILE } from '../database/index.ts';
import { systemErrorCode } from '../errors/index.ts';
import { findKeySource, type KeySource } from '../secrets/index.ts';
import type { Finding } from './host-findings.ts';

// Less than this, and an ordinary image's content soon has no room.
const LITTLE_SPACE = 2 * 1000 ** 3;
const NO_SPACE = 64 * 1000 ** 2;
// sockaddr_un's path, with its closing zero.
const LONGEST_SOCKET_PATH = 107;

/** Looks at what is kept: the data directory, the space that it has, the master key. Makes nothing. */
export function findState(config: Pick<Config, 'data_dir' | 'master_key_file'>): Finding[] {
  const source = findKeySource(config.data_dir, { masterKeyFile: config.master_key_file });
  const hasDatabase = existsSync(join(config.data_dir, DATABASE_FILE));
  return [findDirectory(config.data_dir), findSpace(config.data_dir), findMasterKey(source, hasDatabase)];
}

function findDirectory(path: string): Finding {
  const name = 'data directory';
  const { socket } = dataLayout(path);
  const facts = { path, present: existsSync(path) };
  const fail = (problem: string, hint: string): Finding => ({
    name,
    status: 'fail',
    detail: `${path}: ${problem}`,
    hint,
    facts,
  });
  if (Buffer.byteLength(socket) > LONGEST_SOCKET_PATH) {
    return fail('its path is too long for a Unix socket', 'choose a shorter one with --data-dir');
  }
  const nearest = nearestExisting(path);
  if (!statSync(nearest).isDirectory())
    return fail(`${nearest} is no directory`, 'choose another with --data-dir');
  try {
    accessSync(nearest, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (thrown) {
    return fail(
      `not writable (${systemErrorCode(thrown) ?? 'unknown error'})`,
      'choose another with --data-dir',
    );
  }
  return {
    name,
    status: 'ok',
    detail: `${path}${facts.present ? '' : ' (made at the first start)'}`,
    facts,
  };
}

function findSpace(path: string): Finding {
  const { bavail, bsize } = statfsSync(nearestExisting(path));
  const free = bavail * bsize;
  const status = free < NO_SPACE ? 'fail' : free < LITTLE_SPACE ? 'warn' : 'ok';
  return {
    name: 'free space',
    status,
    detail: formatBytes(free),
    ...(status === 'ok' ? {} : { hint: 'make room, or choose another --data-dir; --cache-limit bounds it' }),
    facts: { bytes: free },
  };
}

/** Where the master key comes from, and whether it can be used. */
export function findMasterKey(source: KeySource, hasDatabase: boolean): Finding {
  const facts = { path: source.path, origin: source.origin };
  const finding = (status: Finding['status'], problem: string, hint?: string): Finding => ({
    name: 'master key',
    status,
    detail: `${source.path} (${source.origin})${problem === '' ? '' : `: ${problem}`}`,
    ...(hint === undefined ? {} : { hint }),
    facts,
  });
  let stats: Stats;
  try {
    stats = statSync(source.path);
  } catch (thrown) {
    const code = systemErrorCode(thrown) ?? 'unknown error';
    if (code !== 'ENOENT')
      return finding('fail', `can't be read (${code})`, 'let this user, and no other, read it');
    if (hasDatabase) return finding('fail', 'missing', 'put the file back: without it no secret can be read');
    if (source.managed) return finding('ok', 'made at the first start');
    return finding('fail', 'missing', 'make one with `imgcred key generate`, readable by its owner only');
  }
  const open = stats.mode & (source.groupMayRead ? 0o007 : 0o077);
  if (open !== 0) return finding('fail', 'others can read it', `chmod 600 ${source.path}`);
  return finding('ok', '');
}

function nearestExisting(path: string): string {
  let found = path;
  while (!existsSync(found) && dirname(found) !== found) found = dirname(found);
  return found;
}
