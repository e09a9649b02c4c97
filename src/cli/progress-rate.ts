import { formatBytes } from '../config/index.ts';

/** `, 12 MiB/s, 3 s left`; empty where the server can't say anything yet. */
export function rateText(line: {
  bytes_per_second?: number | undefined;
  seconds_left?: number | undefined;
}): string {
  const { bytes_per_second, seconds_left } = line;
  if (bytes_per_second === undefined) return '';
  if (seconds_left === undefined) return ', waiting';
  return `, ${formatBytes(bytes_per_second)}/s, ${formatSeconds(seconds_left)} left`;
}

/** `42 s`, `3 min 5 s`, `2 h 10 min`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 90) return `${whole} s`;
  if (whole < 5400) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
