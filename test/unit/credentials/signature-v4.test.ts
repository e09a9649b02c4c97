import { expect, test } from 'bun:test';
import { signPost } from '../../../src/credentials/providers/signature-v4.ts';

const keys = { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY' };
const request = {
  url: new URL('https://example.amazonaws.com/'),
  headers: {},
  body: '',
  region: 'us-east-1',
  service: 'service',
  keys,
  date: new Date('2015-08-30T12:36:00Z'),
};

test('signs AWS’s own test case post-vanilla as AWS does', () => {
  expect(signPost(request).authorization).toBe(
    'AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, ' +
      'Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b',
  );
});

test('signs AWS’s test case post-header-key-sort as AWS does', () => {
  const { authorization } = signPost({ ...request, headers: { 'My-Header1': 'value1' } });
  expect(authorization).toEndWith(
    'SignedHeaders=host;my-header1;x-amz-date, Signature=c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c',
  );
});

test('signs a session’s token with the rest', () => {
  const headers = signPost({ ...request, keys: { ...keys, sessionToken: 'session' } });
  expect(headers['x-amz-security-token']).toBe('session');
  expect(headers.authorization).toContain('SignedHeaders=host;x-amz-date;x-amz-security-token');
});
