import { runMountServer } from '../mounts/index.ts';
import { superviseContainer } from '../worker/index.ts';

/**
 * Runs what imgcred starts itself as a child process, if `argv` asks for one. These are no commands for people:
 * what they need to know comes on their standard input, or in a file, never as an argument.
 *
 * @returns the exit code, or undefined where `argv` is something else
 */
export async function runInternal(argv: readonly string[]): Promise<number | undefined> {
  switch (argv[0]) {
    case 'internal-mount-server':
      await runMountServer(await Bun.stdin.text());
      return 0;
    case 'internal-container-supervisor':
      return superviseContainer();
    default:
      return undefined;
  }
}
