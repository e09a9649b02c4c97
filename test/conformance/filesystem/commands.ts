export interface CommandResult {
  readonly status: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** Runs a program to its end; bytes in, bytes out. */
export async function run(
  command: readonly string[],
  options: { cwd?: string } = {},
): Promise<CommandResult> {
  const child = Bun.spawn([...command], { ...options, stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' });
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).arrayBuffer(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { status, stdout: Buffer.from(stdout), stderr };
}

/** As `run`, but a failure is the test's. */
export async function output(command: readonly string[], options: { cwd?: string } = {}): Promise<string> {
  const result = await run(command, options);
  if (result.status !== 0) throw new Error(`${command.join(' ')}: ${result.stderr}`);
  return result.stdout.toString('latin1');
}

/** The command, as an ordinary user who owns nothing. */
export function unprivileged(command: readonly string[]): string[] {
  return ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--', ...command];
}
