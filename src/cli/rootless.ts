import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { type Config, dataLayout, selfCommand } from '../config/index.ts';
import { ImgcredError } from '../errors/index.ts';
import { readUserNamespace } from '../filesystem/index.ts';
import { enterNewNamespace, joinNamespace, searchPath } from './rootless-entry.ts';
import { parseSubordinateRanges, type SubordinateRange } from './rootless-ids.ts';
import { findLivingNamespace } from './rootless-namespace.ts';

// Set in the new name space. All it does is to end a process that finds itself without rights there, rather than
// have it start anew for ever.
const ENTERED = 'IMGCRED_NAMESPACE_ENTERED';

/** What keeps this user from having a user name space. */
export interface NamespaceLack {
  readonly reason: string;
  readonly hint: string;
}

/**
 * Makes sure that this process may mount, which a worker has to. An ordinary user's process is replaced by one that
 * does the same anew, in a user and mount name space in which it is root; so call it before anything is read from
 * standard input, written, locked or started. With rights, or where there is no worker among the roles, it returns.
 *
 * @throws ImgcredError UNSUPPORTED where user name spaces can't be made, FUSE_UNAVAILABLE where /dev/fuse is closed
 */
export async function enterRootless(config: Pick<Config, 'data_dir' | 'roles'>): Promise<void> {
  if (!needsNamespace(config)) return;
  const lack = namespaceLack();
  if (lack !== undefined) {
    throw new ImgcredError('UNSUPPORTED', `an ordinary user can't run containers here: ${lack.reason}`, {
      hint: lack.hint,
    });
  }
  if (!mayUseFuse()) {
    throw new ImgcredError('FUSE_UNAVAILABLE', '/dev/fuse is closed to this user', { hint: FUSE_HINT });
  }
  await enter(config);
}

/** As {@link enterRootless}, for a command that reports what is possible: where it is not, it returns why. */
export async function tryRootless(
  config: Pick<Config, 'data_dir' | 'roles'>,
): Promise<NamespaceLack | undefined> {
  if (!needsNamespace(config)) return undefined;
  const lack = namespaceLack();
  if (lack === undefined) await enter(config);
  return lack;
}

export const FUSE_HINT =
  'chmod 0666 /dev/fuse (most distributions have it so; a udev rule keeps it: KERNEL=="fuse", MODE="0666"), or run as root';

function mayUseFuse(): boolean {
  if (!existsSync('/dev/fuse')) return true;
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function needsNamespace({ roles }: Pick<Config, 'roles'>): boolean {
  const entered = process.env[ENTERED] !== undefined;
  delete process.env[ENTERED];
  if (!roles.includes('worker') || readUserNamespace().mayMount) return false;
  if (!entered) return true;
  throw new ImgcredError('UNSUPPORTED', 'the new user name space gave no rights', {
    hint: 'imgcred doctor tells more; or run imgcred as root',
  });
}

async function enter(config: Pick<Config, 'data_dir'>): Promise<never> {
  const entry = {
    command: [...selfCommand(), ...process.argv.slice(2)],
    environment: {
      ...process.env,
      // Root's own place would be another one.
      IMGCRED_DATA_DIR: config.data_dir,
      [ENTERED]: '1',
    },
  };
  const living = await findLivingNamespace(dataLayout(config.data_dir));
  if (living !== undefined) return joinNamespace(entry, living);
  const { uids, gids } = subordinateIds();
  return enterNewNamespace(entry, mapperLack() === undefined ? { uids, gids } : { uids: [], gids: [] });
}

/** The ids that this user may map beside its own. */
export function subordinateIds(uid: number = process.getuid?.() ?? 0): {
  uids: SubordinateRange[];
  gids: SubordinateRange[];
} {
  const names = [String(uid), ...nameOf(uid)];
  return {
    uids: parseSubordinateRanges(readText('/etc/subuid'), names),
    gids: parseSubordinateRanges(readText('/etc/subgid'), names),
  };
}

/** Why no more than the user's own ids can be mapped, as far as programs go. */
export function mapperLack(): string | undefined {
  const missing = ['newuidmap', 'newgidmap'].find((name) => Bun.which(name, { PATH: searchPath() }) === null);
  return missing === undefined ? undefined : `${missing} is missing`;
}

/** Tries whether this user may make a user name space and mount in it. */
export function namespaceLack(): NamespaceLack | undefined {
  const unshare = Bun.which('unshare', { PATH: searchPath() });
  if (unshare === null) {
    return { reason: "the program 'unshare' is missing", hint: 'install util-linux, or run imgcred as root' };
  }
  const trial = Bun.spawnSync(
    [unshare, '--user', '--map-root-user', '--mount', '--propagation', 'slave', '--', '/bin/sh', '-c', ':'],
    { stdin: 'ignore', stdout: 'ignore', stderr: 'pipe', env: { PATH: searchPath() } },
  );
  if (trial.exitCode === 0) return undefined;
  const setting = (path: string) => readText(`/proc/sys/${path}`).trim();
  if (setting('user/max_user_namespaces') === '0') {
    return { reason: 'user name spaces are switched off', hint: 'sysctl user.max_user_namespaces=28633' };
  }
  const forbidden: readonly (readonly [name: string, value: string, allowed: string])[] = [
    ['kernel.unprivileged_userns_clone', '0', '1'],
    ['kernel.apparmor_restrict_unprivileged_userns', '1', '0'],
  ];
  for (const [name, value, allowed] of forbidden) {
    if (setting(name.replace('.', '/')) !== value) continue;
    return {
      reason: `ordinary users may not make user name spaces (${name}=${value})`,
      hint: `sysctl ${name}=${allowed}`,
    };
  }
  const said = trial.stderr.toString().trim().split('\n').at(-1) ?? '';
  return {
    reason: `a user name space can't be made (${said})`,
    hint: 'in a container, its seccomp profile or its missing /proc may forbid that; or run imgcred as root',
  };
}

/** The user's name in the machine's list; inside a name space, where this process is called root, too. */
function nameOf(uid: number): string[] {
  const listed = readText('/etc/passwd')
    .split('\n')
    .map((line) => line.split(':'))
    .find((fields) => Number(fields[2]) === uid && fields[2] !== '');
  if (listed?.[0] !== undefined) return [listed[0]];
  try {
    // Of a directory service.
    const user = userInfo();
    return user.uid === uid ? [user.username] : [];
  } catch {
    return [];
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
