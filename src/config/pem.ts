import { readFileSync } from 'node:fs';
import { ImgcredError, systemErrorReason } from '../errors/index.ts';

/**
 * The text of a PEM file that an option names.
 *
 * @param kind what it must hold, as it stands behind BEGIN
 * @throws ImgcredError USAGE naming the option and the file
 */
export function readPem(option: string, file: string, kind: 'CERTIFICATE' | 'PRIVATE KEY'): string {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new ImgcredError('USAGE', `${option} ${file} can't be read (${systemErrorReason(cause)})`, {
      cause,
    });
  }
  if (new RegExp(`-----BEGIN [A-Z ]*${kind}-----`).test(text)) return text;
  throw new ImgcredError('USAGE', `${option} ${file} holds no ${kind.toLowerCase()} in PEM form`);
}
