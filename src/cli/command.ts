import { parseArgs } from 'node:util';
import { ImgcredError } from '../errors/index.ts';
import { nearest } from './nearest.ts';

/** An option of a command. `value` names what follows it in the help; without one it is a switch. */
export interface Option {
  readonly help: string;
  readonly value?: string;
  readonly short?: string;
  readonly multiple?: boolean;
  /** Not shown: an option that is taken only to refuse it with a reason. */
  readonly refuse?: string;
}
export type Options = Readonly<Record<string, Option>>;

/** What was typed after the command's own words. */
export interface Invocation {
  readonly positionals: readonly string[];
  /** What stood behind the first positional, or behind `--`, where the command asks for that. */
  readonly rest: readonly string[];
  text(name: string): string | undefined;
  texts(name: string): readonly string[];
  flag(name: string): boolean;
}

export interface Command {
  /** Noun, then verb: `['image', 'add']`. */
  readonly words: readonly string[];
  readonly summary: string;
  /** What follows the words in the usage line. */
  readonly usage?: string;
  readonly description?: string;
  readonly examples: readonly string[];
  readonly options: Options;
  /** Options end at the first positional: the rest belongs to another program. */
  readonly stopsAtFirstPositional?: boolean;
  /** How many positionals it takes: `[least, most]`. */
  readonly positionals: readonly [number, number];
  /** @returns the exit code */
  run(invocation: Invocation): Promise<number>;
}

/**
 * Splits a command's arguments by its options.
 *
 * @throws ImgcredError USAGE for an unknown option (with the nearest one), a missing value, or a wrong count
 */
export function parseInvocation(command: Command, argv: readonly string[]): Invocation {
  const config = Object.fromEntries(
    Object.entries(command.options).map(([name, option]) => [
      name,
      {
        type:
          option.value === undefined && option.refuse === undefined
            ? ('boolean' as const)
            : ('string' as const),
        multiple: option.multiple === true,
        ...(option.short === undefined ? {} : { short: option.short }),
      },
    ]),
  );
  const title = `imgcred ${command.words.join(' ')}`;
  refuseOptions(command, argv);
  let own = [...argv];
  let rest: string[] = [];
  if (command.stopsAtFirstPositional === true) {
    const { tokens } = parseArgs({
      args: own,
      options: config,
      strict: false,
      allowPositionals: true,
      tokens: true,
    });
    const first = tokens.find((token) => token.kind === 'positional' || token.kind === 'option-terminator');
    if (first !== undefined) {
      const cut = first.kind === 'positional' ? first.index + 1 : first.index;
      rest = own.slice(cut);
      own = own.slice(0, cut);
      if (rest[0] === '--') rest = rest.slice(1);
    }
  } else {
    const terminator = own.indexOf('--');
    if (terminator >= 0) {
      rest = own.slice(terminator + 1);
      own = own.slice(0, terminator);
    }
  }
  let parsed: { values: Record<string, unknown>; positionals: string[] };
  try {
    parsed = parseArgs({ args: own, options: config, strict: true, allowPositionals: true });
  } catch (thrown) {
    throw usageError(command, title, thrown);
  }
  const [least, most] = command.positionals;
  const { values, positionals } = parsed;
  if (positionals.length < least || positionals.length > most) {
    throw new ImgcredError(
      'USAGE',
      positionals.length < least
        ? `${title}: an argument is missing`
        : `${title}: '${positionals[most]}' is one argument too many`,
      { hint: `usage: ${title} ${command.usage ?? ''}`.trim() },
    );
  }
  return {
    positionals,
    rest,
    text: (name) => {
      const value = values[name];
      return typeof value === 'string' ? value : undefined;
    },
    texts: (name) => {
      const value = values[name];
      return Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : [];
    },
    flag: (name) => values[name] === true,
  };
}

// Checked before anything is parsed, so that a value that should never have been typed is not repeated.
function refuseOptions(command: Command, argv: readonly string[]): void {
  for (const argument of argv) {
    if (argument === '--') return;
    const name = /^--([^=]+)/.exec(argument)?.[1];
    const reason = name === undefined ? undefined : command.options[name]?.refuse;
    if (reason !== undefined) {
      throw new ImgcredError('USAGE', `--${name} is refused: ${reason}`, {
        hint: 'use --creds-env NAMES, --creds-file FILE or --creds-stdin',
      });
    }
  }
}

function usageError(command: Command, title: string, thrown: unknown): ImgcredError {
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const unknown = /Unknown option '(-{1,2}[^'=]+)/.exec(message)?.[1];
  if (unknown !== undefined) {
    const shown = Object.entries(command.options).filter(([, option]) => option.refuse === undefined);
    const near = nearest(
      unknown.replace(/^-+/, ''),
      shown.map(([name]) => name),
    );
    return new ImgcredError('USAGE', `${title}: there is no option ${unknown}`, {
      hint: near === undefined ? `${title} --help lists the options` : `did you mean --${near}?`,
    });
  }
  const option = /Option '([^']+)'/.exec(message)?.[1]?.split(' ').at(-1);
  return new ImgcredError(
    'USAGE',
    `${title}: ${option ?? 'an option'} ${/does not take/.test(message) ? 'takes no value' : 'needs a value'}`,
    {
      hint: `${title} --help lists the options`,
    },
  );
}
