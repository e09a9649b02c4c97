/** One measured mark. `value` is in `unit`; when it is a ratio, `against` names the other side. */
export interface Mark {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly against?: string;
  /** The least or the most that `value` may be. */
  readonly least?: number;
  readonly most?: number;
  /** What the ratio was made of, or what else is worth a line. */
  readonly detail?: string;
}

/** A suite: measures in `directory`, which it may fill and must leave without mounts or processes. */
export type Suite = (directory: string) => Promise<Mark[]>;

export function holds({ value, least, most }: Mark): boolean {
  return (least === undefined || value >= least) && (most === undefined || value <= most);
}

/** Runs a program to its end, with `env` beside our own environment; throws what it said when it fails. */
export async function output(command: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> {
  const child = Bun.spawn([...command], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  const [code, out, err] = await Promise.all([
    child.exited,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  if (code !== 0) throw new Error(`${command.join(' ')}: ${err.trim() || `exit code ${code}`}`);
  return out;
}

/** What a program took, in milliseconds, and said. */
export interface Measured {
  readonly took: number;
  readonly said: string;
}

export async function measured(command: readonly string[], env?: Readonly<Record<string, string>>): Promise<Measured> {
  const begin = performance.now();
  const said = await output(command, env);
  return { took: performance.now() - begin, said };
}

/** Milliseconds that `command` takes. */
export async function timed(command: readonly string[], env?: Readonly<Record<string, string>>): Promise<number> {
  return (await measured(command, env)).took;
}

/**
 * A command in a mount namespace of its own, without the second version of control groups where the machine has both:
 * Debian's crun refuses that mix.
 */
export function inOwnNamespace(command: readonly string[]): string[] {
  const hidden = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"';
  return ['unshare', '-m', '--propagation', 'private', 'sh', '-c', hidden, 'sh', ...command];
}

/** The middle of several measurements, each made anew by `measure`. */
export async function median(rounds: number, measure: () => Promise<number>): Promise<number> {
  const values: number[] = [];
  for (let round = 0; round < rounds; round++) values.push(await measure());
  return middle(values);
}

/** The middle one of some numbers. */
export function middle(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** Writes out and forgets all that the kernel caches: pages, names and inodes. Takes root. */
export async function dropCaches(): Promise<void> {
  await output(['sh', '-c', 'sync; echo 3 > /proc/sys/vm/drop_caches']);
}
