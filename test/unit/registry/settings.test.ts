import { describe, expect, test } from 'bun:test';
import { ImgcredError } from '../../../src/errors/index.ts';
import { silentLogger } from '../../../src/observability/index.ts';
import { clientOptionsOf } from '../../../src/registry/index.ts';

const PLAIN = { insecure_registries: [], registry_ca: [], registry_mirrors: [] };

describe('what settings say of registries', () => {
  test('reaches the client: mirrors by their registry, and the certificate that this machine shows', () => {
    const options = clientOptionsOf(
      {
        insecure_registries: ['10.0.0.1:5000'],
        registry_ca: ['/ca.pem'],
        registry_mirrors: ['docker.io=https://mirror.example', 'index.docker.io=mirror.example:5000/hub'],
        registry_client_cert: '/cert.pem',
        registry_client_key: '/key.pem',
      },
      silentLogger,
    );
    expect(options).toMatchObject({
      insecureRegistries: ['10.0.0.1:5000'],
      caFiles: ['/ca.pem'],
      mirrors: [
        { registry: 'docker.io', address: 'https://mirror.example' },
        { registry: 'docker.io', address: 'mirror.example:5000/hub' },
      ],
      clientCertificate: { certFile: '/cert.pem', keyFile: '/key.pem' },
    });
  });

  test.each([
    [{ ...PLAIN, registry_client_cert: '/cert.pem' }],
    [{ ...PLAIN, registry_mirrors: ['docker.io'] }],
    [{ ...PLAIN, registry_mirrors: ['=https://mirror.example'] }],
    [{ ...PLAIN, registry_mirrors: ['docker.io='] }],
  ])('is refused when it is incomplete: %j', (settings) => {
    expect(() => clientOptionsOf(settings, silentLogger)).toThrow(ImgcredError);
  });
});
