// An entry point that is there and can't be loaded.
throw new Error('what it needs is not here');
