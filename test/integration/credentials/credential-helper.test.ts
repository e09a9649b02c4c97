import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  createProviderFromDockerConfig,
  LoginCache,
  parseDockerConfig,
  resolveDockerConfig,
} from '../../../src/credentials/index.ts';

let directory = '';
let environment: Record<string, string> = {};

async function installHelper(name: string, script: string): Promise<void> {
  const path = join(directory, `docker-credential-${name}`);
  await writeFile(path, `#!/bin/sh\n${script}\n`);
  await chmod(path, 0o755);
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'imgcred-helper-'));
  environment = { PATH: `${directory}:/usr/bin:/bin`, LOG: join(directory, 'log') };
  await installHelper(
    'good',
    `printf '%s|' "$1" "$#" >> "$LOG"; tee -a "$LOG" > /dev/null
printf '{"ServerURL":"x","Username":"me","Secret":"p:w"}'`,
  );
  await installHelper('identity', `printf '{"Username":"<token>","Secret":"id"}'`);
  await installHelper('none', `echo 'credentials not found in native keychain'; exit 1`);
  await installHelper('broken', `echo 'hunter2 leaked here'; exit 3`);
  await installHelper('nonsense', `echo hello`);
  await installHelper('slow', `sleep 60`);
  await installHelper('orphan', `sleep 60 & sleep 60`);
  await installHelper(
    'counting',
    `echo x >> "$LOG.count"
printf '{"Username":"me","Secret":"%s"}' "$(wc -l < "$LOG.count" | tr -d ' ')"`,
  );
});

afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

const using = (helper: string) => parseDockerConfig(JSON.stringify({ credHelpers: { 'a.example': helper } }));

describe('credential helpers', () => {
  test('are asked with `get` and the server on standard input', async () => {
    const found = await resolveDockerConfig('a.example', using('good'), { environment });
    expect(found).toEqual({ USERNAME: 'me', PASSWORD: 'p:w' });
    expect(await readFile(join(directory, 'log'), 'utf8')).toBe('get|1|a.example');
  });

  test('may give an identity token, or nothing', async () => {
    const identity = createProviderFromDockerConfig('a.example', using('identity'), { environment });
    expect((await identity.login()).kind).toBe('identity-token');
    expect(await resolveDockerConfig('a.example', using('none'), { environment })).toBeUndefined();
    const none = createProviderFromDockerConfig('a.example', using('none'), { environment });
    expect((await none.login()).kind).toBe('anonymous');
  });

  test('that are missing, fail or talk nonsense are told, without what they printed', async () => {
    const ask = (helper: string) => resolveDockerConfig('a.example', using(helper), { environment });
    await expect(ask('absent')).rejects.toThrow(/docker-credential-absent is not on PATH/);
    await expect(ask('broken')).rejects.toThrow(/failed with status 3/);
    await expect(ask('broken')).rejects.not.toThrow(/hunter2/);
    await expect(ask('nonsense')).rejects.toThrow(/did not answer JSON/);
  });

  test.each(['../good', 'good;id', '/bin/sh', '$(id)', 'a b', '.good'])(
    'named %j are not run',
    async (helper) => {
      const asked = resolveDockerConfig('a.example', using(helper), { environment });
      await expect(asked).rejects.toThrow(/not the name of a credential helper/);
    },
  );

  test.each(['slow', 'orphan'])('that hang (%s) are ended', async (helper) => {
    const asked = resolveDockerConfig('a.example', using(helper), { environment, timeout: 100 });
    await expect(asked).rejects.toThrow(/did not answer in time/);
  });

  test('stop when their caller does', async () => {
    const controller = new AbortController();
    const asked = resolveDockerConfig('a.example', using('slow'), { environment }, controller.signal);
    controller.abort(new Error('enough'));
    await expect(asked).rejects.toThrow('enough');
  });

  test('are asked once for many logins, and again for a refused one', async () => {
    const provider = createProviderFromDockerConfig('a.example', using('counting'), {
      environment,
      cache: new LoginCache(),
    });
    const [first, same] = await Promise.all([provider.login(), provider.login()]);
    expect(first).toBe(same);
    expect(provider.refused(first)).toBe(true);
    const second = await provider.login();
    expect(second.kind === 'basic' && second.password.reveal()).toBe('2');
  });
});
