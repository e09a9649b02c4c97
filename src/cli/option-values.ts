import type { z } from 'zod';
import { parseBytes } from '../config/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { Invocation } from './command.ts';

/** What may stand behind an option. It is checked where the command line is read, before anything is done. */
export interface ValueKind<T> {
  /** What the value must be, as it goes on after `must`: `be a size…`. */
  readonly must: string;
  /** A value that is one; without it the option's own placeholder stands for it. */
  readonly example?: string;
  /** The value, or undefined where the text is none of this kind. */
  parse(text: string): T | undefined;
}

/** Of options that take any text but an empty one: files, names. */
export const TEXT: ValueKind<string> = {
  must: 'not be empty',
  parse: (text) => (text === '' ? undefined : text),
};

/** Of options whose own reader says what is wrong, or to which an empty text means something. */
export const ANY: ValueKind<string> = { must: 'be a text', parse: (text) => text };

export const SIZE = sizeOf(0);

/** A number of bytes, such as `512m`. @param except what else is said of the range */
export function sizeOf(
  least: number,
  shownLeast?: string,
  except: readonly number[] = [],
): ValueKind<number> {
  const from = shownLeast === undefined ? '' : ` of at least ${shownLeast}`;
  const or = except.includes(0) ? ', or 0 for no limit' : '';
  return {
    must: `be a size${from}: a number with a unit (k, m, g, MB, MiB…)${or}`,
    example: '512m',
    parse(text) {
      const bytes = bytesOf(text);
      return bytes !== undefined && (bytes >= least || except.includes(bytes)) ? bytes : undefined;
    },
  };
}

function bytesOf(text: string): number | undefined {
  try {
    return parseBytes(text);
  } catch {
    return undefined;
  }
}

/** Whole numbers, in decimal digits alone. `words` are others that are taken, and what they stand for. */
export function wholeNumber<W = never>(
  range: { readonly least: number; readonly most?: number },
  example: string,
  words: Readonly<Record<string, W>> = {},
): ValueKind<number | W> {
  const { least, most = Number.MAX_SAFE_INTEGER } = range;
  const upTo = range.most === undefined ? ' on' : ` to ${most}`;
  const or = Object.keys(words).map((word) => `, or ${word}`);
  return {
    must: `be a whole number from ${least}${upTo}${or.join('')}`,
    example,
    parse(text) {
      if (Object.hasOwn(words, text)) return words[text];
      const value = /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
      return value >= least && value <= most ? value : undefined;
    },
  };
}

/** Numbers with a fraction, in decimal digits alone. */
export function decimalNumber(
  what: string,
  range: { readonly least: number; readonly most: number },
  example: string,
  except: readonly number[] = [],
): ValueKind<number> {
  const or = except.includes(0) ? ', or 0 for no limit' : '';
  return {
    must: `be a number${what} from ${range.least} to ${range.most}${or}`,
    example,
    parse(text) {
      const value = /^(\d+(\.\d*)?|\.\d+)$/.test(text) ? Number(text) : Number.NaN;
      return (value >= range.least && value <= range.most) || except.includes(value) ? value : undefined;
    },
  };
}

/** Seconds, fractions allowed. */
export function seconds(least: number, most: number, example: string): ValueKind<number> {
  return decimalNumber(' of seconds', { least, most }, example);
}

/** One of some words. */
export function oneOf<const W extends string>(...words: readonly [W, ...W[]]): ValueKind<W> {
  return {
    must: `be ${words.slice(0, -1).join(', ')}${words.length > 1 ? ' or ' : ''}${words.at(-1)}`,
    example: words[0],
    parse: (text) => words.find((word) => word === text),
  };
}

/** What a schema of the API takes, told in the command line's words. */
export function matching<T>(schema: z.ZodType<T>, must: string, example: string): ValueKind<T> {
  return { must, example, parse: (text) => schema.safeParse(text).data };
}

/** `KEY=VALUE`. @param bare what a key without `=` stands for, where it is taken */
export function pair(example: string, bare?: string): ValueKind<readonly [key: string, value: string]> {
  return {
    must: `be KEY=VALUE${bare === undefined ? '' : ', or KEY alone'}`,
    example,
    parse(text) {
      const equals = text.indexOf('=');
      if (text === '' || equals === 0) return undefined;
      if (equals > 0) return [text.slice(0, equals), text.slice(equals + 1)];
      return bare === undefined ? undefined : [text, bare];
    },
  };
}

/**
 * What an option was given, read; undefined where it is not there.
 *
 * @throws ImgcredError USAGE
 */
export function optionValue<T>(invocation: Invocation, name: string, kind: ValueKind<T>): T | undefined {
  const text = invocation.text(name);
  return text === undefined ? undefined : readValue(`--${name}`, text, kind);
}

/** As {@link optionValue}, of an option that may be repeated. */
export function optionValues<T>(invocation: Invocation, name: string, kind: ValueKind<T>): T[] {
  return invocation.texts(name).map((text) => readValue(`--${name}`, text, kind));
}

/**
 * @param flag as it was typed, or the name of an argument
 * @param placeholder what stands for the value in the help
 * @throws ImgcredError USAGE that names the flag, the value, what is wanted and an example
 */
export function readValue<T>(flag: string, text: string, kind: ValueKind<T>, placeholder = 'VALUE'): T {
  const value = kind.parse(text);
  if (value !== undefined) return value;
  throw new ImgcredError('USAGE', `${flag} ${shown(text)}: must ${kind.must}`, {
    hint: kind.example === undefined ? `write ${flag} ${placeholder}` : `for example ${flag} ${kind.example}`,
  });
}

const LONGEST_SHOWN = 80;

function shown(text: string): string {
  const cut = text.length > LONGEST_SHOWN ? `${text.slice(0, LONGEST_SHOWN)}…` : text;
  return cut === '' || /\s/.test(cut) ? JSON.stringify(cut) : cut;
}
