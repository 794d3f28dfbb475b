'use strict';
/*
 * Runs the code of a server-side template against stubs of the documented APIs, and tells what it did.
 *
 * In: one JSON object on stdin
 *   {code, data, eventData, cookies, headers, container, permissions, answer}    one run of the tag
 *   {code, scenarios, setup, permissions}                                        the template's own tests
 * Out: one JSON object on stdout
 *   {requests: [{url, options, body}], logs, succeeded, failed, required, error}
 *   {scenarios: [{name, error}]}
 *
 * Sandboxed JavaScript has no globals but `require` and `data`, and few methods of the built-in types. The code runs in
 * a realm of its own from which everything else was taken away.
 * Source: developers.google.com/tag-platform/tag-manager/templates (sandboxed-javascript, standard-library) and
 * .../server-side/api, read 2026-11.
 */
const vm = require('vm');

const METHODS = {
  Array: ['concat', 'every', 'filter', 'forEach', 'indexOf', 'join', 'lastIndexOf', 'map', 'pop', 'push', 'reduce',
    'reduceRight', 'reverse', 'shift', 'slice', 'some', 'sort', 'splice', 'toString', 'unshift', 'length'],
  String: ['charAt', 'concat', 'indexOf', 'lastIndexOf', 'match', 'replace', 'search', 'slice', 'split', 'substring',
    'toLowerCase', 'toLocaleLowerCase', 'toString', 'toUpperCase', 'toLocaleUpperCase', 'trim', 'length'],
  Object: ['toString'],
  Boolean: ['toString'],
  Number: ['toString'],
  Function: ['call', 'apply'],
};
const CONSTANTS = ['undefined', 'NaN', 'Infinity'];

/** Returns {run, parse}: compile-and-call in a stripped realm, and its JSON.parse for values that the code may touch. */
function realm() {
  const context = vm.createContext(Object.create(null));
  const inside = (source) => vm.runInContext(source, context);
  const kept = {parse: inside('JSON.parse'), stringify: inside('JSON.stringify')};
  const prototypes = Object.keys(METHODS).map((type) => [inside(type + '.prototype'), METHODS[type]]);
  const names = Array.from(inside('Object.getOwnPropertyNames(globalThis)'));
  for (const name of [...names.filter((one) => one !== 'globalThis'), 'globalThis']) {
    if (!CONSTANTS.includes(name)) inside('delete globalThis[' + JSON.stringify(name) + ']');
  }
  for (const [prototype, allowed] of prototypes) {
    for (const name of Object.getOwnPropertyNames(prototype)) {
      // V8 looks the constructor and the internals of a function up by itself
      if (!allowed.includes(name)) Reflect.deleteProperty(prototype, name);
    }
  }
  const run = (source, names, values) =>
    vm.runInContext('(function (' + names.join(', ') + ') {"use strict";\n' + source + '\n})', context)(...values);
  return {run, parse: kept.parse, stringify: kept.stringify};
}

/** Returns the stubs by the name that the code requires. */
function stubs(given, seen, box) {
  const copy = (value) => (value === undefined ? undefined : box.parse(JSON.stringify(value)));
  const param = (permission, key) => (given.permissions[permission] || {})[key];
  return {
    JSON: {parse: box.parse, stringify: box.stringify},
    getAllEventData: () => copy(given.eventData || {}),
    getContainerVersion: () => copy(given.container || {previewMode: false, debugMode: false, version: '7'}),
    getCookieValues: (name) => {
      allow(param('get_cookies', 'cookieNames'), name, 'get_cookies');
      return copy((given.cookies || {})[name] || []);
    },
    getRequestHeader: (name) => {
      allow(param('read_request', 'headerWhitelist'), name, 'read_request');
      return (given.headers || {})[name.toLowerCase()];
    },
    getType: (value) => {
      if (value === null) return 'null';
      return Array.isArray(value) ? 'array' : typeof value;
    },
    logToConsole: (...parts) => { seen.logs.push(parts.join(' ')); },
    makeInteger: (value) => Math.trunc(Number(value)),
    makeString: (value) => String(value),
    sendHttpRequest: (url, options, body) => {
      if (typeof url !== 'string' || typeof options !== 'object') throw Error('sendHttpRequest(url, options, body)');
      seen.requests.push(JSON.parse(JSON.stringify({url, options, body})));
      const answer = given.answer || {statusCode: 200, headers: {}, body: ''};
      return answer.reason ? Promise.reject(answer) : Promise.resolve(answer);
    },
  };
}

function allow(names, name, permission) {
  if (!names || !names.includes(name)) throw Error('permission ' + permission + ' does not cover ' + name);
}

function requirer(apis, seen) {
  return (name) => {
    if (!(name in apis)) throw Error('no stub of the API ' + name);
    if (!seen.required.includes(name)) seen.required.push(name);
    return apis[name];
  };
}

function fresh() {
  return {requests: [], logs: [], succeeded: 0, failed: 0, required: [], error: null};
}

function once(given, done) {
  const seen = fresh();
  const box = realm();
  const data = box.parse(JSON.stringify(given.data || {}));
  data.gtmOnSuccess = () => { seen.succeeded += 1; };
  data.gtmOnFailure = () => { seen.failed += 1; };
  process.on('unhandledRejection', (error) => { seen.error = String(error); });
  try {
    box.run(given.code, ['require', 'data'], [requirer(stubs(given, seen, box), seen), data]);
  } catch (error) {
    seen.error = String(error);
  }
  setImmediate(() => setImmediate(() => done(seen)));
}

/** Runs one scenario of the section of tests with the API of Tag Manager's own test tab. */
function scenario(given, one) {
  const box = realm();
  const seen = fresh();
  const apis = stubs(given, seen, box);
  const calls = {};
  const counted = (name, api) => (...values) => {
    calls[name] = (calls[name] || 0) + 1;
    return api(...values);
  };
  const wrapped = {};
  for (const name of Object.keys(apis)) {
    wrapped[name] = typeof apis[name] === 'function' ? counted(name, apis[name]) : apis[name];
  }
  const equal = (left, right) => JSON.stringify(left) === JSON.stringify(right);
  const check = (held, what) => { if (!held) throw Error('assertion failed: ' + what); };
  const testing = {
    require: requirer(apis, fresh()),
    mock: (name, value) => {
      check(name in apis, name + ' is an API');
      wrapped[name] = counted(name, typeof value === 'function' ? value : () => value);
    },
    runCode: (data) => {
      const whole = Object.assign({}, data, {
        gtmOnSuccess: counted('gtmOnSuccess', () => undefined),
        gtmOnFailure: counted('gtmOnFailure', () => undefined),
      });
      return box.run(given.code, ['require', 'data'], [requirer(wrapped, seen), whole]);
    },
    assertThat: (actual) => ({
      isEqualTo: (wanted) => check(equal(actual, wanted), JSON.stringify(actual) + ' is ' + JSON.stringify(wanted)),
    }),
    assertApi: (name) => ({
      wasCalled: () => check(calls[name] > 0, name + ' was called'),
      wasNotCalled: () => check(!calls[name], name + ' was not called'),
    }),
  };
  try {
    box.run(given.setup + '\n' + one.code, Object.keys(testing), Object.values(testing));
    return {name: one.name, error: null};
  } catch (error) {
    return {name: one.name, error: String(error)};
  }
}

const given = JSON.parse(require('fs').readFileSync(0, 'utf8'));
if (given.scenarios) {
  console.log(JSON.stringify({scenarios: given.scenarios.map((one) => scenario(given, one))}));
} else {
  once(given, (seen) => console.log(JSON.stringify(seen)));
}
