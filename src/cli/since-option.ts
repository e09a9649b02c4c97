import { ImgcredError } from '../errors/index.ts';

const UNITS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/**
 * A point in time: ISO 8601, seconds since 1970, or how long ago (`90s`, `10m`, `1h30m`, `2d`).
 *
 * @param now milliseconds since 1970
 * @returns milliseconds since 1970
 * @throws ImgcredError USAGE
 */
export function parseSince(text: string, now = Date.now()): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  if (/^(\d+[smhd])+$/.test(text)) {
    const parts = [...text.matchAll(/(\d+)([smhd])/g)];
    return now - parts.reduce((sum, [, count, unit]) => sum + Number(count) * (UNITS[unit ?? ''] ?? 0), 0);
  }
  const time = /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isNaN(time)) return time;
  throw new ImgcredError('USAGE', `--since ${text}: is no point in time`, {
    hint: 'write 2026-01-31T12:00:00Z, or how long ago: 90s, 10m, 2h',
  });
}
