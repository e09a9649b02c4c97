import { ImgcredError } from '../errors/index.ts';

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 1 << 10,
  kb: 1000,
  kib: 1 << 10,
  m: 1 << 20,
  mb: 1000 ** 2,
  mib: 1 << 20,
  g: 2 ** 30,
  gb: 1000 ** 3,
  gib: 2 ** 30,
  t: 2 ** 40,
  tb: 1000 ** 4,
  tib: 2 ** 40,
};

/**
 * `512m`, `1.5GiB`, `10GB`, `4096` as a number of bytes. A bare letter is a power of 1,024, as podman takes it.
 *
 * @throws ImgcredError USAGE for anything else
 */
export function parseBytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-zA-Z]*)$/.exec(text.trim());
  const unit = UNITS[match?.[2]?.toLowerCase() ?? '?'];
  const bytes = Math.round(Number(match?.[1]) * (unit ?? Number.NaN));
  if (!Number.isSafeInteger(bytes)) {
    throw new ImgcredError('USAGE', `'${text}' is not a size`, {
      hint: 'write a number with a unit, such as 512MiB or 10GB',
    });
  }
  return bytes;
}

/** Bytes for people, in decimal units: `27.4 MB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(value < 99.95 ? 1 : 0)} ${units[unit]}`;
}
