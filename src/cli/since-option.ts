import { parseDuration } from './duration.ts';
import type { ValueKind } from './option-values.ts';

// What a Date can hold, ms. @see ECMA-262, "Time Values and Time Range"
const LAST_TIME = 8.64e15;

/** ISO 8601: a date, or a date and a time. Milliseconds since 1970. */
export function parseTime(text: string): number | undefined {
  const time = /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(time) ? undefined : time;
}

/**
 * A point in time that has been: ISO 8601, seconds since 1970, or how long ago (`90s`, `10m`, `1h30m`, `2d`).
 * Milliseconds since 1970.
 *
 * @param now milliseconds since 1970
 */
export function sinceKind(now: () => number = Date.now): ValueKind<number> {
  return {
    must: 'be a point in time: ISO 8601, seconds since 1970, or how long ago (90s, 10m, 2h, 3d)',
    example: '10m',
    parse(text) {
      const ago = parseDuration(text);
      const time = /^\d+(\.\d+)?$/.test(text)
        ? Number(text) * 1000
        : ago === undefined
          ? parseTime(text)
          : now() - ago;
      return time !== undefined && Math.abs(time) <= LAST_TIME ? time : undefined;
    },
  };
}
