export * from './exposition.ts';
export * from './logging.ts';
