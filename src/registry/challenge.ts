/** One way that a server offers to authenticate. Scheme and parameter names are in lower case. */
export interface Challenge {
  readonly scheme: string;
  readonly parameters: ReadonlyMap<string, string>;
  /** The opaque form that some schemes use instead of parameters (`Negotiate YII=`). */
  readonly token68?: string;
}

const TOKEN = /[!#$%&'*+\-.^_`|~0-9A-Za-z]+/y;
const TOKEN68 = /[A-Za-z0-9\-._~+/]+=*(?=[ \t]*(?:,|$))/y;
const PARAMETER = /([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*=[ \t]*/y;
const QUOTED = /"((?:[^"\\]|\\.)*)(?:"|$)/sy;
// Registries have sent realms without quotes, although a URL is no token: everything up to the comma then.
const UNQUOTED = /[^,\s]*/y;
const SEPARATOR = /[ \t,]*/y;
const SPACE = /[ \t]+/y;

/**
 * Reads the value of `WWW-Authenticate`, in which several challenges (also several header lines, joined by
 * commas) may stand. It never throws: what can't be read is left out.
 *
 * @see RFC 9110 §11.6.1
 * @example
 * parseChallenges('Bearer realm="https://auth.example/token",service="registry"')[0]?.parameters.get('service')
 */
export function parseChallenges(header: string): Challenge[] {
  const challenges: Challenge[] = [];
  let parameters = new Map<string, string>();
  let position = 0;

  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = position;
    const match = pattern.exec(header);
    if (match !== null) position = pattern.lastIndex;
    return match;
  };

  while (position < header.length) {
    take(SEPARATOR);
    if (position >= header.length) break;
    const parameter = challenges.length > 0 ? take(PARAMETER) : null;
    if (parameter !== null) {
      const quoted = take(QUOTED);
      const value = quoted === null ? (take(UNQUOTED)?.[0] ?? '') : unquote(quoted[1] ?? '');
      const name = (parameter[1] ?? '').toLowerCase();
      // Of a repeated parameter the first counts: a second one can't replace the realm.
      if (!parameters.has(name)) parameters.set(name, value);
      continue;
    }
    const scheme = take(TOKEN);
    if (scheme === null) {
      position += 1;
      continue;
    }
    parameters = new Map();
    const challenge: Challenge = { scheme: scheme[0].toLowerCase(), parameters };
    const token68 = take(SPACE) === null ? null : take(TOKEN68);
    challenges.push(token68 === null ? challenge : { ...challenge, token68: token68[0] });
  }
  return challenges;
}

function unquote(quoted: string): string {
  return quoted.replace(/\\(.)/gs, '$1');
}
