___TERMS_OF_SERVICE___

By creating or modifying this file you agree to Google Tag Manager's Community
Template Gallery Developer Terms of Service available at
https://developers.google.com/tag-manager/gallery-tos (or such other URL as
Google may provide), as modified from time to time.


___INFO___

{
  "type": "TAG",
  "id": "cvt_temp_public_id",
  "version": 1,
  "securityGroups": [],
  "displayName": "Tag Gateway",
  "categories": ["ADVERTISING", "CONVERSIONS"],
  "brand": {
    "id": "brand_dummy",
    "displayName": "Tag Gateway"
  },
  "description": "Hands the event data of a server container to your own tag gateway, which sends it to the Pinterest Conversions API.",
  "containerContexts": [
    "SERVER"
  ]
}


___TEMPLATE_PARAMETERS___

[
  {
    "type": "TEXT",
    "name": "url",
    "displayName": "Gateway URL",
    "help": "The address of the source: https, your gateway's host, /in/ and the source's name in gateway.toml.",
    "simpleValueType": true,
    "valueHint": "https://tags.example.com/in/gtm",
    "alwaysInSummary": true,
    "valueValidators": [
      {
        "type": "NON_EMPTY"
      },
      {
        "type": "REGEX",
        "args": ["^https://[^/]+/in/.+$"],
        "errorMessage": "Write https://, the gateway's host, /in/ and the name of the source."
      }
    ]
  },
  {
    "type": "TEXT",
    "name": "secret",
    "displayName": "Secret",
    "help": "One of the source's secrets. It is sent as the bearer token, and nowhere else.",
    "simpleValueType": true,
    "valueValidators": [
      {
        "type": "NON_EMPTY"
      }
    ]
  },
  {
    "type": "GROUP",
    "name": "eventGroup",
    "displayName": "Event",
    "groupStyle": "ZIPPY_CLOSED",
    "subParams": [
      {
        "type": "TEXT",
        "name": "eventName",
        "displayName": "Event name",
        "help": "Empty: event_name of the event data. The gateway maps names, so this is rarely needed.",
        "simpleValueType": true
      },
      {
        "type": "TEXT",
        "name": "eventId",
        "displayName": "Event ID",
        "help": "Empty: event_id of the event data. Where Pinterest's own tag runs on the pages, it must be the id that this tag sends.",
        "simpleValueType": true
      },
      {
        "type": "SIMPLE_TABLE",
        "name": "fields",
        "displayName": "Fields to add or replace",
        "help": "For what is not in the event data, such as email, phone, order_id, gpp or us_privacy. Rows without a value are left out.",
        "newRowButtonText": "Add field",
        "simpleTableColumns": [
          {
            "type": "TEXT",
            "name": "name",
            "displayName": "Name",
            "defaultValue": "",
            "isUnique": true
          },
          {
            "type": "TEXT",
            "name": "value",
            "displayName": "Value",
            "defaultValue": ""
          }
        ]
      },
      {
        "type": "CHECKBOX",
        "name": "sendCookie",
        "checkboxText": "Send Pinterest's click id cookie (_epik)",
        "help": "The tagging server sees it when it runs under the site's own domain.",
        "simpleValueType": true,
        "defaultValue": true
      },
      {
        "type": "CHECKBOX",
        "name": "previewIsTest",
        "checkboxText": "Mark events of the preview mode as tests",
        "help": "Pinterest checks test events, and does not count them.",
        "simpleValueType": true,
        "defaultValue": true
      }
    ]
  },
  {
    "type": "GROUP",
    "name": "consentGroup",
    "displayName": "Consent",
    "groupStyle": "ZIPPY_CLOSED",
    "subParams": [
      {
        "type": "TEXT",
        "name": "adStorage",
        "displayName": "ad_storage",
        "help": "granted or denied, from a variable. Empty: what the event data says (consent mode). The gateway drops events that are denied.",
        "simpleValueType": true
      },
      {
        "type": "TEXT",
        "name": "adUserData",
        "displayName": "ad_user_data",
        "help": "granted or denied, from a variable. Empty: what the event data says.",
        "simpleValueType": true
      },
      {
        "type": "CHECKBOX",
        "name": "sendGpc",
        "checkboxText": "Send the browser's Global Privacy Control",
        "help": "Hands on the request header Sec-GPC.",
        "simpleValueType": true,
        "defaultValue": true
      }
    ]
  },
  {
    "type": "GROUP",
    "name": "requestGroup",
    "displayName": "Request",
    "groupStyle": "ZIPPY_CLOSED",
    "subParams": [
      {
        "type": "TEXT",
        "name": "timeoutMs",
        "displayName": "Timeout",
        "valueUnit": "milliseconds",
        "simpleValueType": true,
        "defaultValue": 5000,
        "valueValidators": [
          {
            "type": "POSITIVE_NUMBER"
          }
        ]
      },
      {
        "type": "SELECT",
        "name": "logs",
        "displayName": "Log to the console",
        "help": "The status of the answer only: never the event, nor the secret.",
        "macrosInSelect": false,
        "simpleValueType": true,
        "defaultValue": "failures",
        "selectItems": [
          {
            "value": "failures",
            "displayValue": "Failures"
          },
          {
            "value": "all",
            "displayValue": "Every request"
          },
          {
            "value": "none",
            "displayValue": "Nothing"
          }
        ]
      }
    ]
  }
]


___SANDBOXED_JS_FOR_SERVER___

const JSON = require('JSON');
const getAllEventData = require('getAllEventData');
const getContainerVersion = require('getContainerVersion');
const getCookieValues = require('getCookieValues');
const getRequestHeader = require('getRequestHeader');
const getType = require('getType');
const logToConsole = require('logToConsole');
const makeInteger = require('makeInteger');
const makeString = require('makeString');
const sendHttpRequest = require('sendHttpRequest');

const DEFAULT_TIMEOUT_MS = 5000;
// Of Google's own parameters: privacy choices, revenue of older hits, and the debug flag. The others mean nothing
// elsewhere.
const KEPT = [
  'x-ga-gcs', 'x-ga-gcd', 'x-ga-npa', 'x-ga-rdp', 'x-ga-mp1-ev', 'x-ga-mp1-tr', 'x-ga-system_properties'
];

send(completed(forwarded(getAllEventData())));

// The event data without Google's internals, and without the cookies of other vendors.
function forwarded(eventData) {
  const event = {};
  for (let name in eventData) {
    const internal = name.indexOf('x-ga-') === 0 || name.indexOf('x-sst-') === 0;
    if (name !== 'common_cookie' && (!internal || KEPT.indexOf(name) !== -1)) {
      event[name] = eventData[name];
    }
  }
  const cookies = eventData.common_cookie;
  if (cookies && isTold(cookies._epik)) {
    event.common_cookie = {_epik: cookies._epik};
  }
  return event;
}

// Adds what the tag's settings say, and what only the request and the container know.
function completed(event) {
  if (isTold(data.eventName)) event.event_name = data.eventName;
  if (isTold(data.eventId)) event.event_id = makeString(data.eventId);
  (data.fields || []).forEach((field) => {
    if (isTold(field.name) && isTold(field.value)) event[field.name] = field.value;
  });
  addConsent(event);
  if (data.sendCookie && !event.common_cookie) addCookie(event);
  if (data.previewIsTest) {
    const container = getContainerVersion();
    if (container.previewMode || container.debugMode) event.test = true;
  }
  return event;
}

function addConsent(event) {
  if (data.sendGpc && getRequestHeader('sec-gpc') === '1') event.gpc = true;
  if (!isTold(data.adStorage) && !isTold(data.adUserData)) return;
  const state = {};
  for (let name in event.consent_state) {
    state[name] = event.consent_state[name];
  }
  if (isTold(data.adStorage)) state.ad_storage = data.adStorage;
  if (isTold(data.adUserData)) state.ad_user_data = data.adUserData;
  event.consent_state = state;
}

function addCookie(event) {
  const values = getCookieValues('_epik') || [];
  if (isTold(values[0])) event.common_cookie = {_epik: values[0]};
}

function send(event) {
  const url = makeString(data.url).trim();
  // the secret and the shopper's data go with the request
  if (url.indexOf('https://') !== 0) return failed('not sent: the gateway URL does not start with https://');
  const options = {
    method: 'POST',
    timeout: makeInteger(data.timeoutMs) || DEFAULT_TIMEOUT_MS,
    headers: {
      'Content-Type': 'application/json',
      Authorization: 'Bearer ' + makeString(data.secret).trim()
    }
  };
  sendHttpRequest(url, options, JSON.stringify(event)).then(
    (answer) => {
      const outcome = 'answered ' + answer.statusCode;
      if (answer.statusCode < 200 || answer.statusCode >= 300) return failed(outcome);
      if (data.logs === 'all') logToConsole('Tag Gateway: ' + outcome);
      data.gtmOnSuccess();
    },
    (error) => failed('no answer' + (error && error.reason ? ' (' + error.reason + ')' : ''))
  );
}

function failed(outcome) {
  if (data.logs !== 'none') logToConsole('Tag Gateway: ' + outcome);
  data.gtmOnFailure();
}

function isTold(value) {
  const type = getType(value);
  return type !== 'undefined' && type !== 'null' && value !== '';
}


___SERVER_PERMISSIONS___

[
  {
    "instance": {
      "key": {
        "publicId": "read_event_data",
        "versionId": "1"
      },
      "param": [
        {
          "key": "eventDataAccess",
          "value": {
            "type": 1,
            "string": "any"
          }
        }
      ]
    },
    "clientAnnotations": {
      "isEditedByUser": true
    },
    "isRequired": true
  },
  {
    "instance": {
      "key": {
        "publicId": "send_http",
        "versionId": "1"
      },
      "param": [
        {
          "key": "allowedUrls",
          "value": {
            "type": 1,
            "string": "any"
          }
        }
      ]
    },
    "clientAnnotations": {
      "isEditedByUser": true
    },
    "isRequired": true
  },
  {
    "instance": {
      "key": {
        "publicId": "get_cookies",
        "versionId": "1"
      },
      "param": [
        {
          "key": "cookieAccess",
          "value": {
            "type": 1,
            "string": "specific"
          }
        },
        {
          "key": "cookieNames",
          "value": {
            "type": 2,
            "listItem": [
              {
                "type": 1,
                "string": "_epik"
              }
            ]
          }
        }
      ]
    },
    "clientAnnotations": {
      "isEditedByUser": true
    },
    "isRequired": true
  },
  {
    "instance": {
      "key": {
        "publicId": "read_request",
        "versionId": "1"
      },
      "param": [
        {
          "key": "requestAccess",
          "value": {
            "type": 1,
            "string": "specific"
          }
        },
        {
          "key": "headersAllowed",
          "value": {
            "type": 8,
            "boolean": true
          }
        },
        {
          "key": "headerAccess",
          "value": {
            "type": 1,
            "string": "specific"
          }
        },
        {
          "key": "headerWhitelist",
          "value": {
            "type": 2,
            "listItem": [
              {
                "type": 3,
                "mapKey": [
                  {
                    "type": 1,
                    "string": "headerName"
                  }
                ],
                "mapValue": [
                  {
                    "type": 1,
                    "string": "sec-gpc"
                  }
                ]
              }
            ]
          }
        }
      ]
    },
    "clientAnnotations": {
      "isEditedByUser": true
    },
    "isRequired": true
  },
  {
    "instance": {
      "key": {
        "publicId": "read_container_data",
        "versionId": "1"
      },
      "param": []
    },
    "clientAnnotations": {
      "isEditedByUser": true
    },
    "isRequired": true
  },
  {
    "instance": {
      "key": {
        "publicId": "logging",
        "versionId": "1"
      },
      "param": [
        {
          "key": "environments",
          "value": {
            "type": 1,
            "string": "all"
          }
        }
      ]
    },
    "clientAnnotations": {
      "isEditedByUser": true
    },
    "isRequired": true
  }
]


___TESTS___

scenarios:
- name: Posts the event data with the secret
  code: |-
    runCode(settings);

    assertThat(sent.url).isEqualTo('https://tags.example.com/in/gtm');
    assertThat(sent.options.method).isEqualTo('POST');
    assertThat(sent.options.headers.Authorization).isEqualTo('Bearer made-up-secret');
    assertThat(JSON.parse(sent.body).event_name).isEqualTo('purchase');
    assertApi('gtmOnSuccess').wasCalled();
    assertApi('gtmOnFailure').wasNotCalled();
- name: Fails when the gateway refuses
  code: |-
    status = 503;

    runCode(settings);

    assertApi('gtmOnFailure').wasCalled();
    assertApi('gtmOnSuccess').wasNotCalled();
- name: Adds the click id cookie
  code: |-
    mock('getCookieValues', ['made-up-click-id']);

    runCode(settings);

    assertThat(JSON.parse(sent.body).common_cookie._epik).isEqualTo('made-up-click-id');
- name: Sends nothing without https
  code: |-
    settings.url = 'http://tags.example.com/in/gtm';

    runCode(settings);

    assertApi('sendHttpRequest').wasNotCalled();
    assertApi('gtmOnFailure').wasCalled();
setup: |-
  const JSON = require('JSON');
  const settings = {
    url: 'https://tags.example.com/in/gtm',
    secret: 'made-up-secret',
    sendCookie: true,
    previewIsTest: true,
    sendGpc: true,
    timeoutMs: '5000',
    logs: 'none'
  };
  let sent;
  let status = 200;
  mock('getAllEventData', {event_name: 'purchase', event_id: 'made-up-id', value: 12.5, currency: 'EUR'});
  mock('getCookieValues', []);
  mock('getRequestHeader', undefined);
  mock('getContainerVersion', {previewMode: false, debugMode: false});
  mock('sendHttpRequest', (url, options, body) => {
    sent = {url: url, options: options, body: body};
    return {then: (onAnswer) => onAnswer({statusCode: status})};
  });


___NOTES___

Needs a tagging server of image version 2.0.0 or newer (sendHttpRequest with a promise).
