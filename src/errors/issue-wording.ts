import type { z } from 'zod';

/**
 * What is wrong with a value, in our words instead of the schema library's; undefined where the schema says it itself.
 * To be given to `safeParse` as `error`. Never repeats the value: it may be a secret.
 */
export function wordIssue(issue: z.core.$ZodRawIssue): string | undefined {
  switch (issue.code) {
    case 'invalid_type':
      return issue.input === undefined ? 'is missing' : `must be ${TYPES[issue.expected] ?? issue.expected}`;
    case 'too_small':
      return amount(issue.origin, 'at least', Number(issue.minimum), issue.inclusive !== false);
    case 'too_big':
      return amount(issue.origin, 'at most', Number(issue.maximum), issue.inclusive !== false);
    case 'invalid_value':
      return `must be ${listed(issue.values.map(String))}`;
    case 'invalid_format':
      return 'is not of the form that is wanted';
    default:
      return undefined;
  }
}

const TYPES: Readonly<Record<string, string>> = {
  int: 'a whole number',
  number: 'a number',
  string: 'a text',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
  record: 'an object',
  date: 'a time, ISO 8601',
};

function amount(origin: string, bound: string, limit: number, inclusive: boolean): string {
  if (origin === 'string' || origin === 'array') {
    if (limit === 1 && bound === 'at least') return 'must not be empty';
    const unit = origin === 'string' ? 'character' : 'item';
    return `must have ${bound} ${limit} ${unit}${limit === 1 ? '' : 's'}`;
  }
  if (inclusive) return `must be ${bound} ${limit}`;
  return `must be ${bound === 'at least' ? 'more' : 'less'} than ${limit}`;
}

function listed(words: readonly string[]): string {
  return words.length < 2 ? words.join() : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}
