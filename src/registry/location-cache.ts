// Object stores sign for minutes to hours; what doesn't say until when is asked for again after this, in ms.
const DEFAULT_LIFE_MS = 120_000;
const LONGEST_LIFE_MS = 300_000;
// Not used in its last seconds: the request has to arrive in time.
const MARGIN_MS = 15_000;
// One entry a layer; far more layers than one process reads at a time.
const MAX_ENTRIES = 1024;

/** Where blobs' redirects led to, so that each range is not redirected anew; each with an expiry. */
export class LocationCache {
  readonly #now: () => number;
  readonly #entries = new Map<string, { readonly url: URL; readonly until: number }>();

  constructor(now: () => number) {
    this.#now = now;
  }

  get(key: string): URL | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    if (this.#now() < entry.until) return entry.url;
    this.#entries.delete(key);
    return undefined;
  }

  set(key: string, url: URL): void {
    const until = Math.min(this.#now() + LONGEST_LIFE_MS, expiryOf(url) ?? this.#now() + DEFAULT_LIFE_MS);
    if (until - MARGIN_MS <= this.#now()) return;
    if (this.#entries.size >= MAX_ENTRIES) this.#entries.clear();
    this.#entries.set(key, { url, until: until - MARGIN_MS });
  }

  /** Forgets a location that no longer answers, unless it has been replaced meanwhile. */
  drop(key: string, url: URL): void {
    if (this.#entries.get(key)?.url === url) this.#entries.delete(key);
  }
}

/** When a pre-signed URL expires, in ms since 1970, as the signing schemes of the object stores say it. */
export function expiryOf(url: URL): number | undefined {
  const query = url.searchParams;
  for (const vendor of ['X-Amz', 'X-Goog']) {
    const signed = compactDate(query.get(`${vendor}-Date`));
    const seconds = Number(query.get(`${vendor}-Expires`) ?? Number.NaN);
    if (signed !== undefined && Number.isFinite(seconds)) return signed + seconds * 1000;
  }
  const epoch = query.get('Expires') ?? '';
  if (/^\d{9,11}$/.test(epoch)) return Number(epoch) * 1000;
  const azure = Date.parse(query.get('se') ?? '');
  return Number.isNaN(azure) ? undefined : azure;
}

function compactDate(text: string | null): number | undefined {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text ?? '');
  if (match === null) return undefined;
  const [, year, month, day, hour, minute, second] = match;
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
}
