import type { Secret } from '../credentials/index.ts';

const REDACTED = '[redacted]';
// To blot out each single letter of a text would spell the secret instead of hiding it.
const SHORTEST_SECRET = 4;
// The longest piece of a server's prose that is worth a line at the terminal.
const MAX_SERVER_TEXT = 300;
// What is looked through for them at all: some of the patterns take time as the square of the length.
const MAX_SEARCHED_TEXT = 4096;
const URL_IN_TEXT = /\bhttps?:\/\/[^\s"'<>)\]]+/gi;
const AUTHORIZATION_IN_TEXT = /\b(basic|bearer)\s+[A-Za-z0-9\-._~+/]{8,}=*/gi;
const JWT_IN_TEXT = /\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)?/g;
// biome-ignore lint/suspicious/noControlCharactersInRegex: what a server says must not steer the terminal
const CONTROL = /[\u0000-\u001f\u007f-\u009f]+/g;

/** A URL as it may be printed: without user, password, query and fragment (a pre-signed query is a secret). */
export function printableUrl(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`;
}

/**
 * What a server said, as one short line that may be printed: known secrets, tokens and the queries of URLs are
 * taken out, control characters too.
 */
export function printableText(text: string, secrets: readonly Secret<string>[] = []): string {
  const values = secrets
    .map((secret) => secret.reveal())
    .filter((value) => value.length >= SHORTEST_SECRET)
    // A secret that begins like another must not leave the rest of the longer one behind.
    .sort((one, other) => other.length - one.length);
  const known = new RegExp(values.map((value) => RegExp.escape(value)).join('|'), 'g');
  let line = values.length === 0 ? text : text.replace(known, REDACTED);
  line = line
    .slice(0, MAX_SEARCHED_TEXT)
    .replace(CONTROL, ' ')
    .replace(URL_IN_TEXT, (match) => (URL.canParse(match) ? printableUrl(new URL(match)) : REDACTED))
    .replace(AUTHORIZATION_IN_TEXT, (_, scheme: string) => `${scheme} ${REDACTED}`)
    .replace(JWT_IN_TEXT, REDACTED)
    .trim();
  return line.length > MAX_SERVER_TEXT ? `${line.slice(0, MAX_SERVER_TEXT)}…` : line;
}
