import { digestOf } from '../../../src/reference/index.ts';

export interface ModernRegistryOptions {
  /** Bytes that a part of an upload must have at least; announced as the specification says. */
  readonly chunkMinLength?: number;
  /** Descriptors on one page of the referrers. */
  readonly pageSize?: number;
  /** Looks at each request first; an answer of its own ends it. */
  readonly intercept?: (request: Request, url: URL) => Response | undefined;
}

/** A registry in memory with what Debian's lacks: the referrers API of distribution-spec 1.1, with pages. */
export function startModernRegistry(options: ModernRegistryOptions = {}) {
  const blobs = new Map<string, Uint8Array>();
  const manifests = new Map<string, { bytes: Uint8Array; type: string }>();
  const uploads = new Map<string, Uint8Array[]>();
  const seen: { method: string; path: string }[] = [];
  const state = { intercept: options.intercept };
  let uploadNumber = 0;

  const received = (id: string) => (uploads.get(id) ?? []).reduce((sum, part) => sum + part.length, 0);
  const progress = (repository: string, id: string, status: number) =>
    new Response(null, {
      status,
      headers: {
        location: `/v2/${repository}/blobs/uploads/${id}?state=${received(id)}`,
        range: `0-${Math.max(0, received(id) - 1)}`,
        ...(options.chunkMinLength === undefined
          ? {}
          : { 'oci-chunk-min-length': String(options.chunkMinLength) }),
      },
    });

  const upload = async (request: Request, url: URL, repository: string, id: string): Promise<Response> => {
    if (request.method === 'POST') {
      const fresh = `u${++uploadNumber}`;
      uploads.set(fresh, []);
      return progress(repository, fresh, 202);
    }
    const parts = uploads.get(id);
    if (parts === undefined) return problem(404, 'BLOB_UPLOAD_UNKNOWN');
    if (request.method === 'GET') return progress(repository, id, 204);
    const body = new Uint8Array(await request.arrayBuffer());
    if (request.method === 'PATCH') {
      const start = Number(/^(\d+)-/.exec(request.headers.get('content-range') ?? '')?.[1]);
      if (start !== received(id)) return problem(416, 'RANGE_INVALID');
      parts.push(body);
      return progress(repository, id, 202);
    }
    const whole = new Uint8Array(Buffer.concat([...parts, body]));
    uploads.delete(id);
    const digest = url.searchParams.get('digest') ?? '';
    if (digestOf(whole) !== digest) return problem(400, 'DIGEST_INVALID');
    blobs.set(digest, whole);
    return new Response(null, { status: 201 });
  };

  const manifest = async (request: Request, repository: string, reference: string): Promise<Response> => {
    const key = `${repository} ${reference}`;
    if (request.method === 'PUT') {
      const bytes = new Uint8Array(await request.arrayBuffer());
      const stored = { bytes, type: request.headers.get('content-type') ?? '' };
      manifests.set(key, stored);
      manifests.set(`${repository} ${digestOf(bytes)}`, stored);
      const { subject } = JSON.parse(new TextDecoder().decode(bytes));
      const headers = subject === undefined ? undefined : { 'oci-subject': subject.digest };
      return new Response(null, { status: 201, ...(headers === undefined ? {} : { headers }) });
    }
    const stored = manifests.get(key);
    if (stored === undefined) return problem(404, 'MANIFEST_UNKNOWN');
    return new Response(new Uint8Array(stored.bytes), { headers: { 'content-type': stored.type } });
  };

  const referrers = (url: URL, repository: string, subject: string): Response => {
    const type = url.searchParams.get('artifactType');
    const found = [...manifests].flatMap(([key, { bytes, type: mediaType }]) => {
      if (!key.startsWith(`${repository} sha256:`)) return [];
      const json = JSON.parse(new TextDecoder().decode(bytes));
      const { annotations, artifactType = json.config?.mediaType } = json;
      if (json.subject?.digest !== subject || (type !== null && artifactType !== type)) return [];
      return [{ mediaType, digest: digestOf(bytes), size: bytes.length, artifactType, annotations }];
    });
    const from = Number(url.searchParams.get('from') ?? 0);
    const size = options.pageSize ?? 100;
    const next = new URL(url);
    next.searchParams.set('from', String(from + size));
    const list = {
      schemaVersion: 2,
      mediaType: INDEX,
      manifests: found.slice(from, from + size),
    };
    return new Response(JSON.stringify(list), {
      headers: {
        'content-type': INDEX,
        'oci-filters-applied': 'artifactType',
        ...(from + size < found.length ? { link: `<${next.pathname}${next.search}>; rel="next"` } : {}),
      },
    });
  };

  const blob = (request: Request, digest: string): Response => {
    const bytes = blobs.get(digest);
    if (bytes === undefined) return problem(404, 'BLOB_UNKNOWN');
    return new Response(request.method === 'HEAD' ? null : new Uint8Array(bytes), {
      headers: { 'content-length': String(bytes.length) },
    });
  };

  const server = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    async fetch(request) {
      const url = new URL(request.url);
      seen.push({ method: request.method, path: url.pathname });
      const own = state.intercept?.(request, url);
      if (own !== undefined) return own;
      if (url.pathname === '/v2/') return new Response('{}');
      const [, repository = '', kind = '', rest = ''] =
        /^\/v2\/(.+)\/(blobs\/uploads|blobs|manifests|referrers)\/(.*)$/.exec(url.pathname) ?? [];
      if (kind === 'blobs/uploads') return upload(request, url, repository, rest);
      if (kind === 'blobs') return blob(request, rest);
      if (kind === 'manifests') return manifest(request, repository, rest);
      if (kind === 'referrers') return referrers(url, repository, rest);
      return problem(404, 'UNKNOWN');
    },
  });
  return {
    host: `127.0.0.1:${server.port}`,
    url: `http://127.0.0.1:${server.port}`,
    log: [] as readonly string[],
    blobs,
    manifests,
    seen,
    state,
    stop: () => server.stop(true),
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}

const INDEX = 'application/vnd.oci.image.index.v1+json';

function problem(status: number, code: string): Response {
  return Response.json({ errors: [{ code, message: code.toLowerCase() }] }, { status });
}
