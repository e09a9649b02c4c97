/** The range that an answer says it holds, in bytes; `end` is the last byte's position. */
export interface ContentRange {
  readonly start: number;
  readonly end: number;
  /** Undefined where the server doesn't know (`*`). */
  readonly total: number | undefined;
}

const CONTENT_RANGE = /^bytes[ \t]+(\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/i;

/**
 * Reads a `Content-Range`. Undefined for one that is missing, malformed or contradicts itself.
 *
 * @see RFC 9110 §14.4
 */
export function parseContentRange(header: string | null): ContentRange | undefined {
  const match = CONTENT_RANGE.exec(header?.trim() ?? '');
  if (match === null) return undefined;
  const start = Number(match[1]);
  const end = Number(match[2]);
  const total = match[3] === '*' ? undefined : Number(match[3]);
  if (end < start || (total !== undefined && end >= total)) return undefined;
  return { start, end, total };
}
