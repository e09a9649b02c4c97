import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { Cluster, eventually, type RoleProcess } from '../fixtures/cluster/index.ts';
import { type Finished, Sandbox } from '../fixtures/executable/index.ts';
import { type Certificates, makeCertificates } from '../fixtures/registry/index.ts';

setDefaultTimeout(60_000);

let certificates: Certificates;
let cluster: Cluster;
let gateway: RoleProcess;
let sandbox: Sandbox;

beforeAll(async () => {
  certificates = await makeCertificates();
  sandbox = await Sandbox.make();
  cluster = await Cluster.make();
  const tls = ['--tls-cert', certificates.certFile, '--tls-key', certificates.keyFile];
  gateway = await cluster.start('gateway,scheduler', { args: ['--listen', '127.0.0.1:0', ...tls] });
}, 120_000);

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
  await sandbox?.[Symbol.asyncDispose]();
  await certificates?.[Symbol.asyncDispose]();
}, 120_000);

const far = (...args: string[]): Promise<Finished> =>
  sandbox.run([
    ...args,
    '--server',
    `https://${gateway.listen}`,
    '--token-file',
    cluster.path('data', 'admin-token'),
  ]);

test('a command says whose certificate it does not trust, and which option would', async () => {
  for (const command of [
    ['image', 'ls'],
    ['exec', 'some', '/bin/true'],
    ['run', 'r.example/a'],
  ]) {
    const [first = '', ...rest] = command;
    const refused = await (first === 'image'
      ? far(...command)
      : sandbox.run([
          ...[first, '--server', `https://${gateway.listen}`],
          ...['--token-file', cluster.path('data', 'admin-token'), ...rest],
        ]));
    expect(refused.code).toBe(first === 'image' ? 16 : 125);
    expect(refused.stderr).toContain(
      `the certificate of the imgcred server ${gateway.listen} is signed by nobody`,
    );
    expect(refused.stderr).toContain('--server-ca FILE');
    // There is a server: no advice to start one.
    expect(refused.stderr).not.toContain('`imgcred serve`');
  }
  expect(await far('image', 'ls', '--server-ca', certificates.caFile)).toMatchObject({ code: 0 });
});

test('a file that is no certificate authority is named, not called a defect', async () => {
  for (const [file, said] of [
    [sandbox.dataDirectory, `--server-ca ${sandbox.dataDirectory} can't be read`],
    [certificates.keyFile, `--server-ca ${certificates.keyFile} holds no certificate`],
  ] as const) {
    const refused = await far('image', 'ls', '--server-ca', file);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain(said);
  }
});

test('a worker that does not trust its gateway ends, and says so; waiting would not help', async () => {
  const args = ['--gateway', `https://${gateway.listen}`, '--token-file', await cluster.workerToken()];
  const worker = await cluster.start('worker', { data: 'worker', args, wait: false });
  expect(await worker.exited).toBe(16);
  const said = JSON.stringify(worker.lines);
  expect(said).toContain(`the certificate of the imgcred server ${gateway.listen} is signed by nobody`);
  expect(said).toContain('--gateway-ca FILE');
  await cluster.start('worker', { data: 'worker', args: [...args, '--gateway-ca', certificates.caFile] });
});

test('a worker waits for a gateway whose certificate may be good later, and says why', async () => {
  await using expired = await makeCertificates(undefined, -1);
  const tls = ['--tls-cert', expired.certFile, '--tls-key', expired.keyFile];
  const old = await cluster.start('gateway,scheduler', {
    data: 'old',
    args: ['--listen', '127.0.0.1:0', ...tls],
  });
  const args = ['--gateway', `https://${old.listen}`, '--gateway-ca', expired.caFile];
  const worker = await cluster.start('worker', { data: 'waiting', args, wait: false });
  const line = await eventually('it says so', async () => {
    const said = worker.lines.find(({ message }) => message === 'registering failed');
    return said ?? 'not yet';
  });
  expect(line).toMatchObject({
    error: `the certificate of the imgcred server ${old.listen} has expired (CERT_HAS_EXPIRED)`,
    hint: expect.stringContaining('clock'),
  });
  await worker.kill('SIGTERM');
});
