import { closeSync, openSync } from 'node:fs';
import { ImgcredError } from '../errors/index.ts';
import { openPipe, replaceProcess } from '../filesystem/index.ts';
import { mapArguments, type SubordinateRange } from './rootless-ids.ts';
import type { LivingNamespace } from './rootless-namespace.ts';

/** What is to run in the name space, in this process's place. */
export interface Entry {
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
}

// The kernel only lets a process with rights outside map more than one id: newuidmap and newgidmap have them. They
// need the process in its new name space, and it may not go on before they are done. Where they fail, the one id that
// needs no rights is mapped, so that the container runs at all; their own message is on the standard error then.
const MAP_IDS = `{
  read -r pid <&3 || exit 0
  newuidmap "$pid" $3 || echo "0 $1 1" >"/proc/$pid/uid_map"
  newgidmap "$pid" $4 || { echo deny >"/proc/$pid/setgroups"; echo "0 $2 1" >"/proc/$pid/gid_map"; }
  echo done >&4
} &`;

/**
 * Replaces this process by `entry` in a new user and mount name space, where it is root. The process keeps its number,
 * its parent, its terminal and its standard streams.
 * @param ranges what may be mapped beside the user's own ids; none of either: its own ids alone
 */
export function enterNewNamespace(
  entry: Entry,
  ranges: { readonly uids: readonly SubordinateRange[]; readonly gids: readonly SubordinateRange[] },
): never {
  const unshare = ['unshare', '--user', '--mount', '--propagation', 'slave'];
  if (ranges.uids.length === 0 || ranges.gids.length === 0) {
    return become(() => [...unshare, '--map-root-user', '--', ...entry.command], entry.environment, []);
  }
  const asked = openPipe();
  const mapped = openPipe();
  const uid = process.getuid?.() ?? 0;
  const gid = process.getgid?.() ?? 0;
  const uids = mapArguments(uid, ranges.uids).join(' ');
  const gids = mapArguments(gid, ranges.gids).join(' ');
  Bun.spawnSync(['/bin/sh', '-c', MAP_IDS, 'imgcred', String(uid), String(gid), uids, gids], {
    env: { PATH: searchPath() },
    stdio: ['ignore', 'ignore', 'inherit', asked.readEnd, mapped.writeEnd],
  });
  closeSync(asked.readEnd);
  closeSync(mapped.writeEnd);
  const inside = (ask: number, answer: number) =>
    `echo $$ >&${ask}; read -r _ <&${answer}; exec "$@" ${ask}>&- ${answer}<&-`;
  return become(
    (ask, answer) => [...unshare, '--', '/bin/sh', '-c', inside(ask, answer), 'imgcred', ...entry.command],
    entry.environment,
    [asked.writeEnd, mapped.readEnd],
  );
}

/** Replaces this process by `entry` in the name spaces of an earlier worker, as {@link enterNewNamespace} does. */
export function joinNamespace(entry: Entry, { pid, seesMounts }: LivingNamespace): never {
  // By descriptor, so that the process may end meanwhile.
  const user = openSync(`/proc/${pid}/ns/user`, 'r');
  const mounts = seesMounts ? openSync(`/proc/${pid}/ns/mnt`, 'r') : undefined;
  const at = (descriptor: number) => `/proc/self/fd/${descriptor}`;
  const join = (first: number) => ['nsenter', '--preserve-credentials', `--user=${at(first)}`];
  if (mounts === undefined) {
    const unshare = ['unshare', '--mount', '--propagation', 'slave', '--'];
    return become(
      (first) => [
        ...join(first),
        '--',
        ...unshare,
        '/bin/sh',
        '-c',
        `exec "$@" ${first}<&-`,
        'imgcred',
        ...entry.command,
      ],
      entry.environment,
      [user],
    );
  }
  // Another mount name space has another working directory.
  const inside = (first: number, second: number) =>
    `cd -- "$1" || exit; shift; exec "$@" ${first}<&- ${second}<&-`;
  return become(
    (first, second) => [
      ...join(first),
      `--mount=${at(second)}`,
      '--',
      '/bin/sh',
      '-c',
      inside(first, second),
      'imgcred',
      process.cwd(),
      ...entry.command,
    ],
    entry.environment,
    [user, mounts],
  );
}

// The shell knows descriptors of one digit only.
const SHELL_DESCRIPTORS = [3, 4, 5, 6, 7, 8, 9];

/** @param argumentsOf the program and its arguments, given the numbers under which it finds `descriptors` */
function become(
  argumentsOf: (first: number, second: number) => readonly string[],
  environment: Entry['environment'],
  descriptors: readonly number[],
): never {
  const [first = -1, second = -1] = SHELL_DESCRIPTORS.filter((number) => !descriptors.includes(number));
  const args = argumentsOf(first, second);
  const program = Bun.which(args[0] ?? '', { PATH: searchPath() });
  if (program === null) {
    throw new ImgcredError(
      'UNSUPPORTED',
      `the program '${args[0]}' is missing, which makes user name spaces`,
      {
        hint: 'install util-linux, or run imgcred as root',
      },
    );
  }
  const places = [first, second].slice(0, descriptors.length);
  return replaceProcess(
    program,
    args,
    environment,
    new Map(places.map((place, at) => [place, descriptors[at] ?? -1])),
  );
}

/** Where programs are looked for: also where a user's PATH often leaves administration's out. */
export function searchPath(): string {
  return `${process.env.PATH ?? ''}:/usr/bin:/bin:/usr/sbin:/sbin`;
}
