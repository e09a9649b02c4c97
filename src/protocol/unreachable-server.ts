import { certificateProblem, ImgcredError, systemErrorCode } from '../errors/index.ts';

/** Where a connection to an imgcred server was to go, in the words of the options that said so. */
export interface ServerOptionNames {
  /** `--server` or `--gateway`. */
  readonly address: string;
  /** The option that names its certificate authority. */
  readonly ca: string;
  /** Whether that was given. */
  readonly hasCa: boolean;
}

/**
 * The error for a server by https that got no connection because of its certificate, or because it speaks no TLS;
 * undefined where it is about neither. What may pass by itself is SERVER_UNREACHABLE as every other failure: a machine
 * without a battery starts in the year 1970.
 */
export function tlsFailure(
  url: string,
  options: ServerOptionNames,
  cause: unknown,
): ImgcredError | undefined {
  const { host } = new URL(url);
  const code = systemErrorCode(cause);
  const problem = certificateProblem(code);
  if (problem !== undefined) {
    return new ImgcredError(
      problem.kind === 'time' ? 'SERVER_UNREACHABLE' : 'CERTIFICATE_REFUSED',
      `the certificate of the imgcred server ${host} ${problem.words}`,
      { hint: hintFor(problem.kind, options), cause },
    );
  }
  if (code !== 'EPROTO') return undefined;
  return new ImgcredError('SERVER_UNREACHABLE', `the TLS handshake with ${host} failed (${code})`, {
    hint: `if it speaks plain http, write ${options.address} http://${host}`,
    cause,
  });
}

type Kind = NonNullable<ReturnType<typeof certificateProblem>>['kind'];

function hintFor(kind: Kind, { address, ca, hasCa }: ServerOptionNames): string {
  switch (kind) {
    case 'issuer':
      return hasCa
        ? `it is not of the authority that ${ca} names: ask who runs the server for the right one`
        : `give the certificate of its authority, or the server’s own where it is self-signed, with ${ca} FILE`;
    case 'name':
      return `write ${address} with a name or address that stands in the certificate`;
    case 'time':
      return "check this machine's clock; else the server needs a new certificate";
    case 'other':
      return 'the server needs another certificate';
  }
}
