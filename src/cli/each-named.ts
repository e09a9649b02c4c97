import { toImgcredError } from '../errors/index.ts';
import type { Invocation } from './command.ts';
import { print } from './output.ts';
import { reportError } from './report-error.ts';

/**
 * Does something to each of the things that a command names, all at once, and prints the name of each that it was done
 * to. What goes wrong with one keeps nobody from the others.
 *
 * @returns 0, or the exit code of the first of them that failed
 */
export async function eachNamed(
  invocation: Invocation,
  act: (named: string) => Promise<unknown>,
): Promise<number> {
  const codes = await Promise.all(
    invocation.positionals.map(async (named) => {
      try {
        await act(named);
      } catch (thrown) {
        const error = toImgcredError(thrown);
        reportError(error, invocation.flag('json'));
        return error.exitCode;
      }
      await print(`${named}\n`);
      return 0;
    }),
  );
  return codes.find((code) => code !== 0) ?? 0;
}
