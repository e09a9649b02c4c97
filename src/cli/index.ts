import { ImgcredError, toImgcredError } from '../errors/index.ts';
import { asksForHelp, type Command, CommandFailure, parseInvocation } from './command.ts';
import { COMMANDS } from './commands/index.ts';
import { commandHelp, overviewHelp } from './help.ts';
import { nearest } from './nearest.ts';
import { isBrokenPipe, print } from './output.ts';
import { insteadOfCommand } from './podman-words.ts';
import { reportError } from './report-error.ts';
import { withoutShorthand } from './shorthands.ts';

// As of a program that the kernel ends: 128 + SIGPIPE. Nobody is there to be told more.
const BROKEN_PIPE_EXIT = 141;

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
    if (isBrokenPipe(thrown)) return BROKEN_PIPE_EXIT;
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
    if (noun === '--version' || noun === '-V') return dispatch(['version']);
    if (noun === undefined) return unasked(overviewHelp(COMMANDS));
    if (noun === 'help' && argv.length > 1) return dispatch([...argv.slice(1), '--help']);
    if (noun === '--help' || noun === '-h' || noun === 'help') {
      await print(overviewHelp(COMMANDS));
      return 0;
    }
    if (COMMANDS.some((known) => known.words[0] === noun)) {
      const verb = argv[1];
      if (verb === undefined) return unasked(overviewHelp(COMMANDS, noun));
      if (verb !== '--help' && verb !== '-h') throw unknownCommand(`${noun} ${verb}`);
      await print(overviewHelp(COMMANDS, noun));
      return 0;
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
    if (isBrokenPipe(thrown)) throw thrown;
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

// Help that nobody asked for is no output: a script must not take it for one.
function unasked(help: string): number {
  process.stderr.write(help);
  return 2;
}

/** Among the verbs alone where the noun is right: else its letters count for likeness. */
function nearCommand(typed: string): string | undefined {
  const [noun = '', verb] = typed.split(' ');
  const known = COMMANDS.map(({ words }) => words);
  if (verb === undefined)
    return nearest(
      typed,
      known.map((words) => words.join(' ')),
    );
  const verbs = known.flatMap(([first, ...rest]) => (first === noun ? [rest.join(' ')] : []));
  const near = nearest(verb, verbs);
  return near === undefined ? undefined : `${noun} ${near}`;
}

/** For a verb that was typed without its noun: the commands that it may stand for. */
function nounsOf(typed: string): string | undefined {
  const meant = COMMANDS.map(({ words }) => words.join(' ')).filter((words) => words.endsWith(` ${typed}`));
  return meant.length === 0
    ? undefined
    : `did you mean ${meant.map((words) => `'imgcred ${words}'`).join(' or ')}?`;
}

function unknownCommand(typed: string): ImgcredError {
  if (typed.startsWith('-')) {
    return new ImgcredError('USAGE', `${typed.replace(/=.*/s, '')}: options follow the command`, {
      hint: 'for example imgcred ps --json; imgcred --help lists the commands',
    });
  }

  const near = nearCommand(typed);
  const listing = typed.includes(' ') ? `imgcred ${typed.split(' ')[0]} --help` : 'imgcred --help';
  return new ImgcredError('USAGE', `there is no command '${typed}'`, {
    hint:
      insteadOfCommand(typed) ??
      nounsOf(typed) ??
      (near === undefined ? `${listing} lists the commands` : `did you mean 'imgcred ${near}'?`),
  });
}
