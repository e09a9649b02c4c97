export * from './bytes.ts';
export * from './config.ts';
export * from './directories.ts';
export * from './pem.ts';
export * from './self.ts';
export * from './version.ts';
