/* A shop of three products: pages are real loads, so that the tag starts anew on each, as on a shop's. */
(function () {
  'use strict';

  var PRODUCTS = {
    mug: {name: 'Morning mug', price: 24, text: 'Holds 350 ml, keeps warm, fits a big hand.'},
    bowl: {name: 'Breakfast bowl', price: 32, text: 'Wide enough for porridge, deep enough for soup.'},
    vase: {name: 'Meadow vase', price: 58, text: 'For two stems or twenty.'}
  };
  var CURRENCY = 'USD';
  var query = new URLSearchParams(location.search);

  function byId(id) { return document.getElementById(id); }
  function money(amount) { return '$' + amount.toFixed(2); }
  function cart() { return JSON.parse(sessionStorage.getItem('cart') || '{}'); }
  function artOf(id) { return byId('art-' + id).content.cloneNode(true); }

  function itemsOf(lines) {
    return Object.keys(lines).map(function (id) {
      return {id: id, name: PRODUCTS[id].name, price: PRODUCTS[id].price, quantity: lines[id]};
    });
  }

  function totalOf(lines) {
    return itemsOf(lines).reduce(function (sum, item) { return sum + item.price * item.quantity; }, 0);
  }

  function element(name, className, text) {
    var made = document.createElement(name);
    made.className = className;
    made.textContent = text || '';
    return made;
  }

  function showCount() {
    byId('count').textContent = itemsOf(cart()).reduce(function (sum, item) { return sum + item.quantity; }, 0);
  }

  var pages = {
    '/': function () {
      Object.keys(PRODUCTS).forEach(function (id) {
        var card = element('a', 'card');
        card.href = '/product?id=' + id;
        card.id = 'card-' + id;
        card.append(element('div', 'art'), element('div', 'text'));
        card.children[0].append(artOf(id));
        card.children[1].append(element('h2', '', PRODUCTS[id].name), element('span', '', money(PRODUCTS[id].price)));
        byId('products').append(card);
      });
    },

    '/product': function () {
      var id = query.get('id');
      var product = PRODUCTS[id];
      byId('product-name').textContent = product.name;
      byId('product-price').textContent = money(product.price);
      byId('product-text').textContent = product.text;
      byId('product-art').append(artOf(id));
      tg('view_content', {content_name: product.name, items: [{id: id, price: product.price}], currency: CURRENCY});
      byId('add').addEventListener('click', function () {
        var lines = cart();
        lines[id] = (lines[id] || 0) + 1;
        sessionStorage.setItem('cart', JSON.stringify(lines));
        showCount();
        byId('added').hidden = false;
        tg('add_to_cart', {
          value: product.price, currency: CURRENCY, items: [{id: id, name: product.name, price: product.price, quantity: 1}]
        });
      });
    },

    '/cart': function () {
      itemsOf(cart()).forEach(function (item) {
        var line = element('li', '');
        line.append(element('span', '', item.quantity + ' × ' + item.name), element('span', '', money(item.price)));
        byId('lines').append(line);
      });
      byId('total').textContent = money(totalOf(cart()));
      byId('checkout').addEventListener('submit', function (submitted) {
        submitted.preventDefault();
        var order = {id: String(Date.now()), token: 'checkout-' + Date.now(), lines: cart()};
        sessionStorage.setItem('order', JSON.stringify(order));
        sessionStorage.removeItem('cart');
        location.assign('/thanks');
      });
    },

    '/thanks': function () {
      var order = JSON.parse(sessionStorage.getItem('order'));
      byId('order').textContent = order.id;
      byId('order').dataset.token = order.token;
      tg('checkout', {
        order_id: order.id, checkout_token: order.token, value: totalOf(order.lines), currency: CURRENCY,
        items: itemsOf(order.lines)
      });
    }
  };

  document.querySelector('main[data-page="' + location.pathname + '"]').hidden = false;
  showCount();
  pages[location.pathname]();
})();
