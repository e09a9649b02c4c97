import { describe, expect, test } from 'bun:test';
import { cancelled, toContentError } from '../../../src/content/content-error.ts';
import { ContentError, classifyFailure } from '../../../src/content/index.ts';
import { type ErrorCode, ImgcredError } from '../../../src/errors/index.ts';

describe('the class of a failed read', () => {
  const table: [ErrorCode, string][] = [
    ['CREDENTIALS_REFUSED', 'auth'],
    ['UNAUTHORIZED', 'auth'],
    ['FORBIDDEN', 'auth'],
    ['INVALID_CREDENTIALS', 'auth'],
    ['NOT_FOUND', 'missing'],
    ['MANIFEST_UNKNOWN', 'missing'],
    ['REGISTRY_UNREACHABLE', 'unreachable'],
    ['REGISTRY_ERROR', 'unreachable'],
    ['CORRUPT', 'corrupt'],
    ['DATA_DIR', 'local'],
    ['INTERNAL', 'unreachable'],
  ];
  test.each(table)('%s is %s', (code, failure) => {
    expect(classifyFailure(new ImgcredError(code, 'x'))).toBe(failure as ReturnType<typeof classifyFailure>);
  });

  test.each([
    ['ENOSPC', 'local'],
    ['EROFS', 'local'],
    ['ECONNRESET', 'unreachable'],
    ['ETIMEDOUT', 'unreachable'],
  ])('the system call error %s is %s', (code, failure) => {
    expect(classifyFailure(Object.assign(new Error('x'), { code }))).toBe(
      failure as ReturnType<typeof classifyFailure>,
    );
  });

  test('the code and the hint of the cause are kept', () => {
    const error = toContentError(
      new ImgcredError('FORBIDDEN', 'denied', { hint: 'ask for access' }),
      'reading',
    );
    expect(error).toMatchObject({
      failure: 'auth',
      code: 'FORBIDDEN',
      message: 'reading: denied',
      hint: 'ask for access',
    });
  });

  test('a foreign error gets the code of its class and a hint', () => {
    const error = toContentError(new Error('fetch failed\nat x'), 'reading');
    expect(error).toMatchObject({
      failure: 'unreachable',
      code: 'REGISTRY_UNREACHABLE',
      message: 'reading: fetch failed',
    });
    expect(error.hint).toBeTruthy();
  });

  test('a ContentError is not wrapped again', () => {
    const error = new ContentError('missing', 'NOT_FOUND', 'gone');
    expect(toContentError(error, 'reading')).toBe(error);
  });

  test('a cancelled read is CANCELLED', () => {
    expect(cancelled(AbortSignal.abort()).code).toBe('CANCELLED');
  });
});
