import { ImgcredError, toImgcredError } from '../errors/index.ts';
import { asksForHelp, type Command, CommandFailure, parseInvocation } from './command.ts';
import { COMMANDS } from './commands/index.ts';
import { commandHelp, overviewHelp } from './help.ts';
import { nearest } from './nearest.ts';
import { print } from './output.ts';
import { reportError } from './report-error.ts';
import { withoutShorthand } from './shorthands.ts';

/**
 * Runs the command that `argv` (without the program's own name) asks for. Errors are printed on stderr, one line
 * and a hint, or as JSON where `--json` was given.
 *
 * @returns the exit code (README, "Exit codes")
 */
export async function main(argv: readonly string[]): Promise<number> {
  try {
    return await dispatch(argv);
  } catch (thrown) {
    const error = toImgcredError(thrown);
    const own = argv.includes('--') ? argv.slice(0, argv.indexOf('--')) : argv;
    reportError(error, own.includes('--json'));
    if (
      error.code === 'INTERNAL' &&
      process.env.IMGCRED_LOG_LEVEL === 'debug' &&
      error.cause instanceof Error
    ) {
      process.stderr.write(`${error.cause.stack}\n`);
    }
    return error.exitCode;
  }
}

async function dispatch(typed: readonly string[]): Promise<number> {
  const argv = withoutShorthand(typed);
  const command = findCommand(argv);
  if (command === undefined) {
    const noun = argv[0];
    const asked = noun === undefined || noun === '--help' || noun === '-h' || noun === 'help';
    if (noun === '--version' || noun === '-V') return dispatch(['version']);
    if (asked) {
      await print(overviewHelp(COMMANDS));
      return noun === undefined ? 2 : 0;
    }
    if (COMMANDS.some((known) => known.words[0] === noun)) {
      const verb = argv[1];
      if (verb === undefined || verb === '--help' || verb === '-h') {
        await print(overviewHelp(COMMANDS, noun));
        return verb === undefined ? 2 : 0;
      }
      throw unknownCommand(`${noun} ${verb}`);
    }
    throw unknownCommand(noun);
  }
  const rest = argv.slice(command.words.length);
  if (asksForHelp(command, rest)) {
    await print(commandHelp(command));
    return 0;
  }
  try {
    return await command.run(parseInvocation(command, rest));
  } catch (thrown) {
    const error = toImgcredError(thrown);
    if (command.ownFailure === undefined || error.code === 'CANCELLED' || error instanceof CommandFailure)
      throw error;
    throw new CommandFailure(error, command.ownFailure);
  }
}

function findCommand(argv: readonly string[]): Command | undefined {
  return COMMANDS.filter((command) => command.words.every((word, at) => argv[at] === word)).sort(
    (a, b) => b.words.length - a.words.length,
  )[0];
}

function unknownCommand(typed: string): ImgcredError {
  const near = nearest(
    typed,
    COMMANDS.map((command) => command.words.join(' ')),
  );
  return new ImgcredError('USAGE', `there is no command '${typed}'`, {
    hint: near === undefined ? 'imgcred --help lists the commands' : `did you mean 'imgcred ${near}'?`,
  });
}
