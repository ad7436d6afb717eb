// Where the model lies that comes along and is used when no other is named.

export const shippedModel = 'assets/models/tiny-llava';
