import { readFileSync } from 'node:fs';
import { getCACertificates } from 'node:tls';
import { Secret } from '../credentials/index.ts';
import { ImgcredError, systemErrorCode } from '../errors/index.ts';

/** Own trust and own identity, as PEM. */
export interface TlsMaterial {
  /** All certificates that are trusted, the usual ones included; undefined means the usual ones. */
  readonly ca?: readonly string[];
  readonly cert?: string;
  readonly key?: Secret<string>;
}

export interface TlsFiles {
  /** PEM files whose certificates are trusted besides the system's. */
  readonly caFiles?: readonly string[] | undefined;
  /** Shown to the registry itself, never to a host that it redirects to. */
  readonly clientCertificate?: { readonly certFile: string; readonly keyFile: string } | undefined;
}

/**
 * Reads the files.
 *
 * @throws ImgcredError `INVALID_INPUT` for a file that can't be read or holds no PEM of the right kind
 */
export function readTlsMaterial(files: TlsFiles): TlsMaterial {
  const own = (files.caFiles ?? []).map((file) => readPem(file, 'CERTIFICATE', 'CA file'));
  const { clientCertificate } = files;
  return {
    // `ca` replaces the trusted set, so the usual certificates have to be said again.
    ...(own.length === 0 ? {} : { ca: [...getCACertificates('default'), ...own] }),
    ...(clientCertificate === undefined
      ? {}
      : {
          cert: readPem(clientCertificate.certFile, 'CERTIFICATE', 'client certificate'),
          key: new Secret(readPem(clientCertificate.keyFile, 'PRIVATE KEY', 'client key')),
        }),
  };
}

function readPem(file: string, kind: string, role: string): string {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new ImgcredError(
      'INVALID_INPUT',
      `can't read the ${role} ${file}: ${systemErrorCode(cause) ?? 'error'}`,
      {
        cause,
      },
    );
  }
  if (new RegExp(`-----BEGIN [A-Z ]*${kind}-----`).test(text)) return text;
  throw new ImgcredError('INVALID_INPUT', `the ${role} ${file} holds no ${kind} in PEM form`);
}
