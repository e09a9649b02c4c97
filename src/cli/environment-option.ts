import { readFile } from 'node:fs/promises';
import { ImgcredError, systemErrorReason } from '../errors/index.ts';

/**
 * The variables that `--env` and `--env-file` name, as podman reads them: `KEY=VALUE`; `KEY` alone takes this
 * process's; `PREFIX*` takes all of this process's that begin so. A file has one a line, and `#` comments. What is
 * given by `--env` wins.
 *
 * @throws ImgcredError USAGE
 */
export async function readEnvironment(
  variables: readonly string[],
  files: readonly string[],
  own: Readonly<Record<string, string | undefined>> = process.env,
): Promise<Record<string, string>> {
  const env: Record<string, string> = {};
  for (const file of files) {
    for (const line of (await readLines(file)).map((text) => text.trimStart())) {
      if (line !== '' && !line.startsWith('#')) take(line, `--env-file ${file}`);
    }
  }
  for (const text of variables) take(text, '--env');
  return env;

  // No message repeats a value: it may be one that should have been a secret.
  function take(text: string, origin: string): void {
    const equals = text.indexOf('=');
    const name = equals < 0 ? text : text.slice(0, equals);
    if (name === '' || /\s/.test(name)) {
      throw new ImgcredError('USAGE', `${origin}: a variable's name is empty or has a space in it`, {
        hint: 'write KEY=VALUE, or KEY for the value that it has here',
      });
    }
    if (equals >= 0) env[name] = text.slice(equals + 1);
    else if (name.endsWith('*')) {
      for (const [key, value] of Object.entries(own)) {
        if (key.startsWith(name.slice(0, -1)) && value !== undefined) env[key] = value;
      }
    } else {
      const value = own[name];
      if (value !== undefined) env[name] = value;
    }
  }
}

async function readLines(file: string): Promise<string[]> {
  try {
    return (await readFile(file, 'utf8')).split(/\r?\n/);
  } catch (cause) {
    const reason = systemErrorReason(cause);
    throw new ImgcredError('USAGE', `--env-file ${file} can't be read (${reason})`, { cause });
  }
}
