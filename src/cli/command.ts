import { parseArgs } from 'node:util';
import { ImgcredError } from '../errors/index.ts';
import { nearest } from './nearest.ts';
import { readValue, TEXT, type ValueKind } from './option-values.ts';
import { insteadOfOption } from './podman-words.ts';

/** An option of a command. `value` names what follows it in the help; without one it is a switch. */
export interface Option {
  readonly help: string;
  readonly value?: string;
  /** What the value must be; any text but an empty one where it is left out. */
  readonly takes?: ValueKind<unknown>;
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

// Not a negative number.
const LIKE_AN_OPTION = /^-[^\d]/;

/** What podman exits with where it failed itself. */
export const OWN_FAILURE = 125;

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
  /** The exit code of imgcred's own failures, where all others are a container's. */
  readonly ownFailure?: number;
  /** @returns the exit code */
  run(invocation: Invocation): Promise<number>;
}

/** A failure with an exit code of its own: one that is not to be taken for a container's. */
export class CommandFailure extends ImgcredError {
  readonly #exitCode: number;

  constructor(error: ImgcredError, exitCode: number) {
    super(error.code, error.message, { hint: error.hint, cause: error.cause });
    this.#exitCode = exitCode;
  }

  override get exitCode(): number {
    return this.#exitCode;
  }
}

/**
 * Splits a command's arguments by its options, and checks their values. Of what is out of place no message repeats
 * more than an option's name: it may be a secret that went astray.
 *
 * @throws ImgcredError USAGE for an unknown option (with the nearest one), a missing or wrong value, or a wrong count
 */
export function parseInvocation(command: Command, argv: readonly string[]): Invocation {
  const title = titleOf(command);
  const { tokens, rest } = ownTokens(command, argv);
  const values = new Map<string, string[]>();
  const flags = new Set<string>();
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') positionals.push(token.value);
    else {
      const option = Object.hasOwn(command.options, token.name) ? command.options[token.name] : undefined;
      if (option === undefined) throw unknownOption(command, token.rawName);
      if (option.refuse !== undefined) {
        throw new ImgcredError('USAGE', `--${token.name} is refused: ${option.refuse}`, {
          hint: 'use --creds-env NAMES, --creds-file FILE or --creds-stdin',
        });
      }
      if (option.value === undefined) {
        if (token.value !== undefined) throw misused(title, token.rawName, 'takes no value');
        flags.add(token.name);
      } else {
        const swallowed = !token.inlineValue && LIKE_AN_OPTION.test(token.value ?? '');
        if (token.value === undefined || swallowed) {
          throw misused(title, token.rawName, `needs a value: ${token.rawName} ${option.value}`);
        }
        readValue(token.rawName, token.value, option.takes ?? TEXT, option.value);
        const earlier = option.multiple === true ? (values.get(token.name) ?? []) : [];
        values.set(token.name, [...earlier, token.value]);
      }
    }
  }
  const [least, most] = command.positionals;
  if (positionals.length < least || positionals.length > most) {
    const problem = positionals.length < least ? 'an argument is missing' : 'there are too many arguments';
    throw new ImgcredError('USAGE', `${title}: ${problem}`, {
      hint: `usage: ${title} ${command.usage ?? ''}`.trim(),
    });
  }
  return {
    positionals,
    rest,
    text: (name) => values.get(name)?.at(-1),
    texts: (name) => values.get(name) ?? [],
    flag: (name) => flags.has(name),
  };
}

/** Whether `--help` or `-h` stands among a command's own arguments. */
export function asksForHelp(command: Command, argv: readonly string[]): boolean {
  return ownTokens(command, argv).tokens.some(
    (token) => token.kind === 'option' && (token.rawName === '--help' || token.rawName === '-h'),
  );
}

type OwnToken =
  | { readonly kind: 'positional'; readonly value: string }
  | {
      readonly kind: 'option';
      readonly name: string;
      readonly rawName: string;
      readonly value: string | undefined;
      readonly inlineValue: boolean | undefined;
    };

/** The arguments up to `--`, or up to the first positional where the command stops there, and what follows. */
function ownTokens(command: Command, argv: readonly string[]): { tokens: OwnToken[]; rest: string[] } {
  const options = Object.fromEntries(
    Object.entries(command.options).map(([name, option]) => [
      name,
      {
        type:
          option.value === undefined && option.refuse === undefined
            ? ('boolean' as const)
            : ('string' as const),
        ...(option.short === undefined ? {} : { short: option.short }),
      },
    ]),
  );
  // Not strict: the parser's own messages quote what was typed.
  const parsed = parseArgs({ args: [...argv], options, strict: false, allowPositionals: true, tokens: true });
  const tokens: OwnToken[] = [];
  for (const token of parsed.tokens) {
    if (token.kind === 'option-terminator') return { tokens, rest: argv.slice(token.index + 1) };
    tokens.push(token);
    if (token.kind === 'positional' && command.stopsAtFirstPositional === true) {
      const rest = argv.slice(token.index + 1);
      return { tokens, rest: rest[0] === '--' ? rest.slice(1) : rest };
    }
  }
  return { tokens, rest: [] };
}

function titleOf(command: Command): string {
  return `imgcred ${command.words.join(' ')}`;
}

function unknownOption(command: Command, rawName: string): ImgcredError {
  const title = titleOf(command);
  const shown = Object.entries(command.options).filter(([, option]) => option.refuse === undefined);
  const name = rawName.replace(/^-+/, '');
  const near = nearest(
    name,
    shown.map(([known]) => known),
  );
  const similar = near === undefined || rawName.length < 3 ? undefined : `did you mean --${near}?`;
  return new ImgcredError('USAGE', `${title}: there is no option ${rawName}`, {
    hint: insteadOfOption(name) ?? similar ?? `${title} --help lists the options`,
  });
}

function misused(title: string, rawName: string, problem: string): ImgcredError {
  return new ImgcredError('USAGE', `${title}: ${rawName} ${problem}`, {
    hint: `${title} --help lists the options`,
  });
}
