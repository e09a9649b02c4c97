import type { ValueKind } from './option-values.ts';

const UNITS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
// A thousand years: what is longer was mistyped, and leaves what a date can hold.
const LONGEST_MS = 365_250 * 86_400_000;

/** `90s`, `10m`, `1h30m`, `1.5h`, `2d` in milliseconds; undefined for anything else. */
export function parseDuration(text: string): number | undefined {
  if (!/^(\d+(\.\d+)?[smhd])+$/.test(text)) return undefined;
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)([smhd])/g)];
  const ms = parts.reduce((sum, [, count, unit]) => sum + Number(count) * (UNITS[unit ?? ''] ?? 0), 0);
  return ms <= LONGEST_MS ? Math.round(ms) : undefined;
}

export const DURATION: ValueKind<number> = {
  must: 'be a duration: numbers with s, m, h or d',
  example: '12h',
  parse: parseDuration,
};
