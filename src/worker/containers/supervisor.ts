import { appendFileSync, writeSync } from 'node:fs';
import { toImgcredError } from '../../errors/index.ts';
import { forbidCoreDumps } from '../../filesystem/index.ts';
import { containerPaths } from './container-files.ts';
import { type ContainerSecret, deserialiseSecrets } from './container-secrets.ts';
import { ContainerError, NotInImageError } from './errors.ts';
import { readHostFacts } from './host-facts.ts';
import { SupervisedContainer } from './supervised-container.ts';
import { warmUp } from './warm-up.ts';

// An instruction that has not come by then is not there yet: there is time.
const WAITS_AFTER_MS = 25;

/**
 * The life of one container: the main function of `imgcred internal-container-supervisor`. It reads what to do from
 * its standard input (`{"directory", "secrets"}`; an empty one means that it is not needed), tells on standard output
 * that the container is prepared or why not, and from then on is reached through the container's `control.sock`. It
 * outlives the worker; the container's output and exit code are in the directory before it ends.
 * @returns the exit code of the supervisor's own process
 */
export async function superviseContainer(): Promise<number> {
  // A container's secrets pass through here. Traceable: the next worker looks for what is left of it.
  forbidCoreDumps({ traceable: true });
  const input = Bun.stdin.text();
  const waits = await Promise.race([input.then(() => false), Bun.sleep(WAITS_AFTER_MS).then(() => true)]);
  const host = waits ? readHostFacts() : undefined;
  if (host !== undefined) warmUp(host);
  const text = await input;
  if (text === '') return 0;
  for (const signal of ['SIGHUP', 'SIGINT', 'SIGPIPE'] as const) process.on(signal, () => {});
  let container: SupervisedContainer;
  try {
    const { directory, secrets } = parseInstruction(text);
    logDefects(containerPaths(directory).supervisorLog);
    container = SupervisedContainer.prepare(directory, secrets, host ?? readHostFacts());
  } catch (error) {
    const failure = toImgcredError(error);
    const exitCode = failure instanceof NotInImageError ? { exitCode: failure.exitCode } : {};
    report({ event: 'failed', ...failure.toJSON(), ...exitCode });
    return 1;
  }
  report({ event: 'prepared' });
  await container.finished;
  return 0;
}

function parseInstruction(text: string): { directory: string; secrets: readonly ContainerSecret[] } {
  const value: unknown = JSON.parse(text);
  if (typeof value === 'object' && value !== null && 'directory' in value && 'secrets' in value) {
    return { directory: String(value.directory), secrets: deserialiseSecrets(value.secrets) };
  }
  throw new ContainerError('the supervisor was given no instruction');
}

// Nobody reads this process's standard error.
function logDefects(path: string): void {
  for (const event of ['uncaughtException', 'unhandledRejection']) {
    process.on(event, (thrown: unknown) => {
      const stack = thrown instanceof Error ? thrown.stack : undefined;
      appendFileSync(path, `${new Date().toISOString()} ${stack ?? String(thrown)}\n`, { mode: 0o600 });
      process.exit(1);
    });
  }
}

/** One line to whoever started this process; it may be gone. */
function report(message: Readonly<Record<string, unknown>>): void {
  try {
    writeSync(1, `${JSON.stringify(message)}\n`);
  } catch {
    // The worker was killed meanwhile; the next one reads the directory.
  }
}
